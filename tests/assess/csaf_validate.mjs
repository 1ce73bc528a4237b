// Validate CSAF documents (a JSON list on stdin) by the library whose directory is the argument; print the errors of each.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const library = process.argv[2];
const load = (name) => import(pathToFileURL(join(library, name)));
const { default: validate } = await load("validate.js");
const schemas = await load("schemaTests.js");
const mandatory = await load("mandatoryTests.js");
const tests = [schemas.csaf_2_0_strict ?? schemas.csaf_2_0, ...Object.values(mandatory)];
const results = [];
for (const document of JSON.parse(readFileSync(0, "utf8"))) {
  const { isValid, tests: done } = await validate(tests, document);
  const errors = done.flatMap((test) => test.errors.map((error) => `${test.name}: ${error.instancePath} ${error.message}`));
  results.push({ valid: isValid, errors });
}
process.stdout.write(JSON.stringify(results));
