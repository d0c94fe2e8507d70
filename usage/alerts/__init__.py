"""Alerts: rules watch, what they find fires once, and destinations hear of it until it is over.

kinds        what the kinds of rules need to know, and what they begin with
conditions   a rule and the moment -> what is so at present; reads only, no state
watching     conditions -> alerts: fires, resolves, makes deliveries; all of a rule in one transaction
messages     an alert -> the body that a webhook, Slack, Teams, Discord or a mail carries; pure
sending      deliveries -> destinations: claims what is due, tries, tries again, gives up; tests of a destination
transport    the way out: HTTP that reaches no private network, and mail
sign_ins     counts failed sign-ins
sources      what other apps know and lend
"""
