// Checks compose.yaml: against the schema of the compose specification, that everything it names is there, that the
// nodes can use io_uring, and that no secret stands in it.
import { readFileSync, existsSync } from "node:fs";
import Ajv from "ajv";
import formats from "ajv-formats";
import YAML from "yaml";

const root = new URL("../../", import.meta.url);
const text = readFileSync(new URL("compose.yaml", root), "utf8");
const problems = [];

// Merge keys (<<) are of YAML 1.1 and the specification allows them.
const parsed = YAML.parseDocument(text, { merge: true, uniqueKeys: true });
problems.push(...parsed.errors.map((error) => error.message), ...parsed.warnings.map((error) => error.message));
const compose = parsed.toJS();

// The newest schema of the specification comes with the linter.
const schema = JSON.parse(readFileSync(new URL("node_modules/dclint/schemas/compose.schema.json", import.meta.url)));
delete schema.$schema;
const ajv = new Ajv({ strict: false, allErrors: true });
formats(ajv);
ajv.addFormat("duration", true).addFormat("ports", true).addFormat("expose", true).addFormat("subnet_ip_address", true);
const fits = ajv.compile(schema);
if (!fits(compose)) problems.push(...fits.errors.map((error) => `${error.instancePath} ${error.message} ${JSON.stringify(error.params)}`));

const services = compose.services ?? {};
for (const [name, service] of Object.entries(services)) {
  const after = Array.isArray(service.depends_on) ? service.depends_on : Object.keys(service.depends_on ?? {});
  for (const other of after) if (!services[other]) problems.push(`${name} waits for ${other}, which is not there`);
  for (const network of service.networks ?? []) {
    if (!(network in compose.networks)) problems.push(`${name} is on the network ${network}, which is not there`);
  }
  for (const volume of service.volumes ?? []) {
    const source = volume.split(":")[0];
    if (source.startsWith(".") ? !existsSync(new URL(source, root)) : !(source in compose.volumes)) {
      problems.push(`${name} mounts ${source}, which is not there`);
    }
  }
  for (const option of service.security_opt ?? []) {
    const profile = option.match(/^seccomp[:=](.*)/)?.[1];
    if (profile && !existsSync(new URL(profile, root))) problems.push(`${name} has the profile ${profile}, which is not there`);
  }
  for (const config of service.configs ?? []) {
    if (!compose.configs?.[config.source]) problems.push(`${name} has the config ${config.source}, which is not there`);
  }
}
for (const volume of Object.keys(compose.volumes ?? {})) {
  const used = Object.values(services).some((service) => (service.volumes ?? []).some((v) => v.startsWith(`${volume}:`)));
  if (!used) problems.push(`nobody mounts the volume ${volume}`);
}
// A node is a node: io_uring is allowed, enough memory can be locked, and it may take its time to drain.
for (const name of ["chat-1", "chat-2"]) {
  const node = services[name];
  if (!node.security_opt.some((option) => option.startsWith("seccomp"))) problems.push(`${name} could not use io_uring`);
  if (!(node.ulimits.memlock >= 8 << 20)) problems.push(`${name} could not lock enough memory`);
  if (node.environment.CAFFIS_NODE !== name) problems.push(`${name} has another name`);
  if (!(parseInt(node.stop_grace_period) > 26)) problems.push(`${name} would be killed while it drains`);
}
// No secret stands in the file.
for (const word of ["PASSWORD", "SECRET"]) {
  for (const line of text.split("\n").filter((line) => !line.startsWith("#") && line.includes(word))) {
    if (!line.includes("${")) problems.push(`a secret in clear: ${line.trim()}`);
  }
}
const balancer = readFileSync(new URL("tuning/nginx.conf", root), "utf8");
for (const [, server] of balancer.matchAll(/^\s*server ([a-z0-9-]+):8080/gm)) {
  if (!services[server]) problems.push(`the balancer sends to ${server}, which is not there`);
}

if (problems.length) {
  console.error(problems.map((problem) => `compose: ${problem}`).join("\n"));
  process.exit(1);
}
console.log(`compose: ${Object.keys(services).length} services fit the compose specification`);
