// What docs/integrating.md shows of files and signatures, as it stands there: run, not copied. TypeScript in a page of another
// origin, Python in an interpreter.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { join } from "node:path";
import { promisify } from "node:util";
import { transform } from "../../web/node_modules/esbuild/lib/main.js";
import { ROOT, step } from "./people.mjs";

const DOCS = readFileSync(join(ROOT, "docs/integrating.md"), "utf8");
/** The vector of Standard Webhooks, which stands there, too. */
const SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const [ID, AT, BODY] = ["msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, '{"test": 2432232314}'];
const SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
const run = promisify(execFile);

/** All blocks of a language that have one of these words, as one source. */
function source(language, ...words) {
  const blocks = DOCS.split(`\`\`\`${language}\n`).slice(1).map((rest) => rest.split("```")[0]);
  return words.map((word) => {
    const found = blocks.filter((block) => block.includes(word));
    assert.equal(found.length, 1, `one block of ${language} has ${word}`);
    return found[0];
  }).join("\n");
}

const asModule = async (text) => (await transform(text, { loader: "ts", format: "esm" })).code;

/** A front end of somebody else's: a page that is empty. */
export async function frontEnd() {
  const server = createServer((_, response) => response.writeHead(200, { "content-type": "text/html" }).end("<!doctype html>")).listen(0, "127.0.0.1");
  await once(server, "listening");
  return { origin: `http://127.0.0.1:${server.address().port}`, close: () => server.close() };
}

/** `page` is at a front end; `chat` and the place of its files are elsewhere. */
export async function examplesOfTheDocumentation(page, chat, folder) {
  step("the documentation's examples: TypeScript in a page of another origin, Python");
  mkdirSync(folder, { recursive: true });
  const logIn = (name) => fetch(`${chat}/v1/demo/login`, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ name }) }).then((answer) => answer.json());
  const [dora, emil] = await Promise.all(["Dora", "Emil"].map(logIn));
  const opened = await fetch(`${chat}/v1/rooms`, {
    method: "POST", headers: { authorization: `Bearer ${dora.token}`, "content-type": "application/json" },
    body: JSON.stringify({ kind: "direct", member_ids: [emil.user_id], client_room_id: crypto.randomUUID() }),
  }).then((answer) => answer.json());
  const { room_id } = opened.room;
  const known = [chat, dora.token, room_id];
  const text = "Bring bread, and “butter”.";

  const written = source("ts", "export async function sendFile");
  writeFileSync(join(folder, "documented.ts"), written);
  const check = run(join(ROOT, "web/node_modules/.bin/tsc"), ["--noEmit", "--strict", "--target", "es2022", "--module", "preserve", "--lib", "es2022,dom,dom.iterable", join(folder, "documented.ts")]);
  const code = `data:text/javascript;base64,${Buffer.from(await asModule(written)).toString("base64")}`;
  const byPage = await page.evaluate(async ([code, known, reader, text]) => {
    const { sendFile, fileUrl } = await import(code);
    const id = crypto.randomUUID();
    const file = new File([text], "list.txt", { type: "text/plain" });
    const sent = await sendFile(...known, "file", file, "The list", id);
    const again = await sendFile(...known, "file", file, "Another", crypto.randomUUID()).then(({ seq }) => seq);
    const wrong = await sendFile(...known, "file", new File(["<p>"], "a.html", { type: "text/html" })).then(() => "taken", ({ code }) => code);
    const read = await fetch(await fileUrl(known[0], reader, known[2], sent.upload_id)).then((answer) => answer.text());
    return { seq: sent.seq, again, wrong, read };
  }, [code, known, emil.token, text]);
  await check.catch(({ stdout }) => assert.fail(`its types: ${stdout}`));
  assert.deepEqual([byPage.wrong, byPage.read], ["unsupported_media", text]);
  assert.ok(byPage.again > byPage.seq && byPage.seq > 0);

  writeFileSync(join(folder, "documented.py"), source("python", "def send_file", "def sign", "def is_ours"));
  const told = JSON.stringify({ known, reader: emil.token, text, secret: SECRET, id: ID, at: AT, body: BODY });
  const { stdout } = await run("python3", ["-c", `
import json, sys, time, urllib.request
from documented import *
told = json.loads(sys.argv[1])
known, reader, text = told["known"], told["reader"], told["text"].encode()
sent = send_file(*known, "file", 'a "list".txt', "text/plain", text)
again = send_file(*known, "file", 'a "list".txt', "text/plain", text)
with urllib.request.urlopen(file_url(known[0], reader, known[2], sent["upload_id"]), timeout=10) as answer:
    assert answer.read() == text
    assert answer.headers["content-disposition"].startswith("attachment"), answer.headers
try:
    send_file(*known, "file", "a.html", "text/html", b"<p>")
    refused = "taken"
except RuntimeError as error:
    refused = str(error)
signature = sign(told["secret"], told["id"], told["at"], told["body"].encode())
now = int(time.time())
headers = {"webhook-id": "a", "webhook-timestamp": str(now), "webhook-signature": "v1,AAAA " + sign(told["secret"], "a", now, b"{}")}
ours = [is_ours(told["secret"], headers, b"{}"), is_ours(told["secret"], headers, b"[]"), is_ours(told["secret"], {**headers, "webhook-timestamp": str(now - 400)}, b"{}")]
print(json.dumps([sent["seq"] < again["seq"], refused, signature, ours]))
`, told], { cwd: folder });
  assert.deepEqual(JSON.parse(stdout), [true, "unsupported_media", SIGNATURE, [true, false, false]]);

  writeFileSync(join(folder, "documented.mjs"), await asModule(source("ts", "export function sign", "export function isOurs")));
  const { sign, isOurs } = await import(join(folder, "documented.mjs"));
  assert.equal(sign(SECRET, ID, AT, BODY), SIGNATURE);
  const now = Math.floor(Date.now() / 1_000);
  const headers = { "webhook-id": "a", "webhook-timestamp": String(now), "webhook-signature": `v1,AAAA ${sign(SECRET, "a", now, "{}")}` };
  const old = { ...headers, "webhook-timestamp": String(now - 400) };
  assert.deepEqual([isOurs(SECRET, headers, "{}"), isOurs(SECRET, headers, "[]"), isOurs(SECRET, old, "{}")], [true, false, false]);
}
