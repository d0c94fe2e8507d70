"""What people ask for and who decides it, courses that are invited, terms that are agreed to, and the pages of those
who manage a team.

    models      the rows               policy      who decides, and what needs no decision
    services    ask, decide, collect   carrying    what an approval does
    cohorts     a course and its end   enrolment   how students come into it
    terms       versions, agreement    teams       members, keys and budgets of a team, for its managers
    notices     mail about all this    money       budgets and use, which another app lends us
"""
