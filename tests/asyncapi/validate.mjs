// Validates an AsyncAPI document against the official JSON Schema of AsyncAPI 3.0, its embedded
// payloads against draft 07, and that every $ref leads somewhere.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import Ajv from "ajv";
import addFormats from "ajv-formats";

const require = createRequire(import.meta.url);
// The edition with ids holds a copy of draft 07 under the same id as the validator's own.
const official = require("@asyncapi/specs/schemas/3.0.0-without-$id.json");

const [path] = process.argv.slice(2);
const document = JSON.parse(readFileSync(path, "utf8"));
const problems = [];

const ajv = new Ajv({ strict: false, allErrors: true });
addFormats(ajv);
const validate = ajv.compile(official);
if (!validate(document)) {
  for (const error of validate.errors) problems.push(`${error.instancePath} ${error.message}`);
}

let references = 0;
const follow = (value, at) => {
  if (Array.isArray(value)) return value.forEach((item, i) => follow(item, `${at}/${i}`));
  if (value === null || typeof value !== "object") return;
  if (typeof value.$ref === "string") {
    references += 1;
    const steps = value.$ref.split("/").slice(1);
    const found = steps.reduce((node, step) => node?.[step], document);
    if (!value.$ref.startsWith("#/") || found === undefined) {
      problems.push(`${at}: ${value.$ref} leads nowhere`);
    }
  }
  for (const [key, item] of Object.entries(value)) follow(item, `${at}/${key}`);
};
follow(document, "");

let payloads = 0;
const plain = new Ajv({ strict: true, strictTypes: false, allowUnionTypes: true });
addFormats(plain);
plain.addKeyword("components");
for (const [key, message] of Object.entries(document.components.messages)) {
  payloads += 1;
  try {
    plain.compile({ ...message.payload, components: document.components });
  } catch (error) {
    problems.push(`${key}: ${error.message}`);
  }
}

// A check that looked at nothing proves nothing.
if (references < 50 || payloads < 20) problems.push(`only ${references} refs, ${payloads} payloads`);
if (problems.length > 0) {
  console.error(problems.join("\n"));
  process.exit(1);
}
console.log(`${path}: valid AsyncAPI 3.0; ${payloads} payloads, ${references} references`);
