import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";
import { fieldsOf, type Json, resolve, typeOf } from "../src/docs";

const api = JSON.parse(readFileSync("../docs/openapi.json", "utf8")) as Json;
const operation = (path: string, method: string) => (api as any).paths[path][method];

test("every operation has a summary, a tag that is listed, and in an answer of JSON fields", () => {
  const { paths, tags } = api as any;
  const names = tags.map((tag: any) => tag.name);
  let count = 0;
  for (const methods of Object.values(paths) as any[]) {
    for (const own of Object.values(methods) as any[]) {
      count += 1;
      assert.ok(own.summary, own.operationId);
      assert.ok(names.includes(own.tags[0]), own.operationId);
      const done = own.responses["200"] ?? own.responses["202"] ?? own.responses["204"];
      assert.ok(done, own.operationId);
      const json = done.content?.["application/json"];
      assert.ok(!json || fieldsOf(api, json.schema).fields.length > 0, own.operationId);
    }
  }
  assert.ok(count >= 18, `${count}`);
});

test("references are followed, and what stands beside one wins", () => {
  const problem = operation("/v1/rooms", "get").responses["404"];
  assert.match(String(resolve(api, problem).description), /Nothing has this id/);
  const both = resolve(api, { $ref: "#/components/schemas/RoomId", description: "mine" });
  assert.equal(both.description, "mine");
  assert.equal(both.type, "string");
  assert.deepEqual(resolve(api, { $ref: "#/no/such" }), {});
});

test("types are told in a few words", () => {
  const body = operation("/v1/rooms", "post").requestBody.content["application/json"].schema;
  const { fields, required } = fieldsOf(api, body);
  const types = new Map(fields.map(([name, value]) => [name, typeOf(api, value)]));
  assert.equal(types.get("member_ids"), "string (uuid)[]");
  assert.match(types.get("kind") ?? "", /"direct" \| "group"/);
  assert.equal(types.get("title"), "string | null");
  assert.deepEqual([...required].sort(), ["kind", "member_ids"]);
});
