// The page of the HTTP API: shows the OpenAPI document of the server that it came from. Text only goes in as text.

export type Json = null | boolean | number | string | Json[] | { [name: string]: Json };
export type Schema = { [name: string]: Json };

const METHODS = ["get", "post", "put", "patch", "delete"];
const DEPTH_MAX = 6;

const isObject = (value: Json | undefined): value is { [name: string]: Json } =>
  typeof value === "object" && value !== null && !Array.isArray(value);
const object = (value: Json | undefined): { [name: string]: Json } => (isObject(value) ? value : {});
const list = (value: Json | undefined): Json[] => (Array.isArray(value) ? value : []);
const text = (value: Json | undefined): string => (typeof value === "string" ? value : "");

/** What a reference names; anything else as it is. */
export function resolve(document: Json, value: Json | undefined): Schema {
  const path = text(object(value).$ref);
  if (!path.startsWith("#/")) return object(value);
  let found: Json | undefined = document;
  for (const part of path.slice(2).split("/")) found = object(found)[part.replace(/~1/g, "/").replace(/~0/g, "~")];
  const { $ref: _, ...own } = object(value);
  return { ...object(found), ...own };
}

/** The type of a schema in a few words. */
export function typeOf(document: Json, value: Json | undefined): string {
  const schema = resolve(document, value);
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  const choices = list(schema.enum);
  if (choices.length > 0) return choices.map((one) => JSON.stringify(one)).join(" | ");
  for (const name of ["anyOf", "oneOf"]) {
    const some = list(schema[name]);
    if (some.length > 0) return [...new Set(some.map((one) => typeOf(document, one)))].join(" | ");
  }
  const types = Array.isArray(schema.type) ? schema.type.map(text) : [text(schema.type) || "any"];
  const told = types.map((type) => (type === "array" ? `${typeOf(document, schema.items)}[]` : type));
  return told.join(" | ") + (text(schema.format) ? ` (${text(schema.format)})` : "");
}

/** The fields of a schema, those of its items and of the first of its choices that has any. */
export function fieldsOf(document: Json, value: Json | undefined): { fields: [string, Json][]; required: string[] } {
  const schema = resolve(document, value);
  const fields = Object.entries(object(schema.properties));
  if (fields.length > 0) return { fields, required: list(schema.required).map(text) };
  if (isObject(schema.items)) return fieldsOf(document, schema.items);
  for (const one of [...list(schema.anyOf), ...list(schema.oneOf)]) {
    const inner = fieldsOf(document, one);
    if (inner.fields.length > 0) return inner;
  }
  return { fields: [], required: [] };
}

function element(name: string, className: string, ...inner: (Node | string)[]): HTMLElement {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.append(...inner);
  return made;
}

function field(api: Json, name: string, value: Json, must: boolean, about: string, depth: number): HTMLElement {
  const item = element("li", "", element("code", "", name), " ", element("span", "type quiet", typeOf(api, value)));
  if (must) item.append(" ", element("span", "must", "required"));
  if (about) item.append(" ", element("span", "", about));
  const inner = depth > 0 ? fields(api, value, depth - 1) : null;
  if (inner) item.append(element("details", "", element("summary", "quiet", "fields"), inner));
  return item;
}

function fields(api: Json, schema: Json | undefined, depth: number): HTMLElement | null {
  const found = fieldsOf(api, schema);
  if (found.fields.length === 0) return null;
  const items = found.fields.map(([name, value]) =>
    field(api, name, value, found.required.includes(name), text(resolve(api, value).description), depth),
  );
  return element("ul", "fields", ...items);
}

function content(api: Json, value: Json | undefined): HTMLElement | null {
  const [first] = Object.values(object(object(value).content));
  return first ? fields(api, object(first).schema, DEPTH_MAX) : null;
}

function operation(api: Json, method: string, path: string, value: Json): HTMLElement {
  const own = object(value);
  const name = method.toUpperCase();
  const summary = element(
    "summary", "", element("span", `method ${name}`, name), element("span", "path", path),
    element("span", "quiet", text(own.summary)),
  );
  const body = element("div", "", element("p", "quiet", text(own.description)));
  const parameters = list(own.parameters).map((one) => {
    const { in: place, name, required, schema, description } = resolve(api, one);
    const about = `(${text(place)}) ${text(description)}`;
    return field(api, text(name), schema ?? {}, required === true, about, 0);
  });
  if (parameters.length > 0) body.append(element("h3", "", "Parameters"), element("ul", "fields", ...parameters));
  const asked = content(api, own.requestBody);
  if (asked) body.append(element("h3", "", "Body"), asked);
  body.append(element("h3", "", "Answers"));
  for (const [status, one] of Object.entries(object(own.responses))) {
    const answer = resolve(api, one);
    const line = element("p", "", element("code", "", status), " ", text(answer.description));
    body.append(line);
    const told = status < "300" ? content(api, answer) : null;
    if (told) body.append(told);
  }
  return element("details", "operation", summary, body);
}

function show(api: Json): void {
  const { info, openapi, paths, tags } = object(api);
  const place = (id: string) => document.getElementById(id) as HTMLElement;
  place("about").textContent = text(object(info).description);
  place("version").textContent = text(openapi);
  const all: { shown: HTMLElement; words: string }[] = [];
  for (const tag of list(tags).map(object)) {
    const section = element("section", "", element("h2", "", text(tag.name)), element("p", "quiet", text(tag.description)));
    for (const [path, methods] of Object.entries(object(paths))) {
      for (const method of METHODS) {
        const value = object(methods)[method];
        if (!value || !list(object(value).tags).includes(text(tag.name))) continue;
        const shown = operation(api, method, path, value);
        all.push({ shown, words: (shown.firstChild?.textContent + text(object(value).description)).toLowerCase() });
        section.append(shown);
      }
    }
    place("operations").append(section);
  }
  const find = place("find") as HTMLInputElement;
  find.addEventListener("input", () => {
    const words = find.value.toLowerCase().split(/\s+/);
    for (const one of all) one.shown.hidden = !words.every((word) => one.words.includes(word));
  });
}

async function main(): Promise<void> {
  try {
    const answer = await fetch("openapi.json");
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    show((await answer.json()) as Json);
  } catch (error) {
    (document.getElementById("problem") as HTMLElement).textContent = `openapi.json cannot be read: ${String(error)}`;
  }
}

if (typeof document !== "undefined") void main();
