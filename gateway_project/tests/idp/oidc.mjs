// A real OpenID provider. People come from a JSON file that a test may change between two sign-ins.
import { readFileSync, existsSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [port, clientFile, peopleFile] = process.argv.slice(2);
const { default: Provider } = await import(pathToFileURL(`${process.env.IDP_MODULES}/oidc-provider/lib/index.js`).href);

const { clients } = JSON.parse(readFileSync(clientFile, "utf8"));
const people = () => (existsSync(peopleFile) ? JSON.parse(readFileSync(peopleFile, "utf8")) : {});
const provider = new Provider(`http://127.0.0.1:${port}`, {
  clients,
  claims: {
    openid: ["sub"],
    email: ["email", "email_verified"],
    profile: ["name", "given_name", "family_name", "preferred_username", "groups", "eduperson_affiliation"],
  },
  findAccount: (ctx, id) => ({ accountId: id, claims: () => ({ sub: id, ...people()[id] }) }),
  pkce: { required: () => true },
  features: { devInteractions: { enabled: true }, backchannelLogout: { enabled: true }, rpInitiatedLogout: { enabled: true } },
  // Its own fetch calls nobody on this machine, where the gateway of the tests is.
  fetch: (url, { dispatcher, ...options }) => globalThis.fetch(url, options),
  cookies: { keys: ["only for tests"] },
  ttl: { Session: 3600, Grant: 3600, Interaction: 600, AccessToken: 600, IdToken: 600 },
});
// The gateway of the tests has no TLS and is on this machine.
const allowed = provider.Client.Schema.prototype.invalidate;
provider.Client.Schema.prototype.invalidate = function invalidate(message, code) {
  if (code === "implicit-force-https" || code === "implicit-forbid-localhost") return;
  allowed.call(this, message);
};
provider.on("backchannel.error", (ctx, error) => console.log("could not log out:", error.message));
provider.on("backchannel.success", () => console.log("logged out"));
provider.listen(Number(port), "127.0.0.1", () => console.log("ready"));
