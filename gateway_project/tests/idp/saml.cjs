// Who signs in at the SAML IdP of the tests, unless its form is filled in otherwise.
const { metadata } = require(`${process.env.IDP_MODULES}/saml-idp/config.js`);

module.exports = {
  metadata,
  user: {
    userName: "3f2a-lecturer",
    nameIdFormat: "urn:oasis:names:tc:SAML:2.0:nameid-format:persistent",
    firstName: "Lea",
    lastName: "Lecturer",
    displayName: "Lea Lecturer",
    email: "lea@example.org",
    groups: "lectures, staff",
  },
};
