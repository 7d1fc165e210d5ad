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

  const written = source("ts", "export async function upload");
  writeFileSync(join(folder, "documented.ts"), written);
  const check = run(join(ROOT, "web/node_modules/.bin/tsc"), ["--noEmit", "--strict", "--target", "es2022", "--module", "preserve", "--lib", "es2022,dom,dom.iterable", join(folder, "documented.ts")]);
  const code = `data:text/javascript;base64,${Buffer.from(await asModule(written)).toString("base64")}`;
  const byPage = await page.evaluate(async ([code, known, reader, text]) => {
    const { upload, sendMessage, fileUrl } = await import(code);
    const file = new File([text], "list.txt", { type: "text/plain" });
    // Of each path the first answer is lost on its way.
    const [real, lost] = [window.fetch, new Set()];
    window.fetch = async (url, request) => {
      const answer = await real(url, request);
      if (lost.has(url.pathname)) return answer;
      lost.add(url.pathname);
      throw new TypeError("Failed to fetch");
    };
    const upload_id = await upload(...known, "file", file);
    const message = { client_msg_id: crypto.randomUUID(), kind: "file", text: "The list", attachments: [{ upload_id }] };
    const sent = await sendMessage(...known, message);
    window.fetch = real;
    const again = await sendMessage(...known, message);
    const other = { ...message, client_msg_id: crypto.randomUUID(), attachments: [{ upload_id: await upload(...known, "file", file) }] };
    const next = await sendMessage(...known, other);
    const wrong = await upload(...known, "file", new File(["<p>"], "a.html", { type: "text/html" })).then(() => "taken", ({ code }) => code);
    // The day's quota is no matter of a moment.
    let asked = 0;
    window.fetch = async () => {
      asked += 1;
      return Response.json({ code: "rate_limited", detail: "no more today", temporary: true, retry_after_ms: 86_400_000 }, { status: 429 });
    };
    const full = await upload(...known, "file", file).then(() => "taken", ({ code }) => code);
    window.fetch = real;
    const read = await fetch(await fileUrl(known[0], reader, known[2], upload_id)).then((answer) => answer.text());
    return { sent: [sent.duplicate, again.duplicate, sent.seq === again.seq, next.duplicate, next.seq > sent.seq], lost: lost.size, wrong, full, asked, read };
  }, [code, known, emil.token, text]);
  await check.catch(({ stdout }) => assert.fail(`its types: ${stdout}`));
  assert.deepEqual(byPage, { sent: [true, true, true, false, true], lost: 3, wrong: "unsupported_media", full: "rate_limited", asked: 1, read: text });

  writeFileSync(join(folder, "documented.py"), source("python", "def upload", "def sign", "def is_ours"));
  const told = JSON.stringify({ known, reader: emil.token, text, secret: SECRET, id: ID, at: AT, body: BODY });
  const { stdout } = await run("python3", ["-c", `
import io, json, sys, time, urllib.error, urllib.request, uuid
from documented import *
told = json.loads(sys.argv[1])
known, reader, text = told["known"], told["reader"], told["text"].encode()
real, lost = urllib.request.urlopen, set()
def losing(request, **how):
    """Of each path the first answer is lost on its way."""
    answer = real(request, **how)
    if request.selector in lost:
        return answer
    lost.add(request.selector)
    answer.close()
    raise urllib.error.URLError("lost")
urllib.request.urlopen = losing
upload_id = upload(*known, "file", 'a "list".txt', "text/plain", text)
message = {"client_msg_id": str(uuid.uuid4()), "kind": "file", "attachments": [{"upload_id": upload_id}]}
sent = send_message(*known, message)
urllib.request.urlopen = real
again = send_message(*known, message)
assert sent["duplicate"] and again["duplicate"] and sent["seq"] == again["seq"] and len(lost) == 3, [sent, again, lost]
other = [{"upload_id": upload(*known, "file", 'a "list".txt', "text/plain", text)}]
after = send_message(*known, {**message, "client_msg_id": str(uuid.uuid4()), "attachments": other})
with urllib.request.urlopen(file_url(known[0], reader, known[2], upload_id), timeout=10) as given:
    assert given.read() == text
    assert given.headers["content-disposition"].startswith("attachment"), given.headers
def refusal():
    try:
        return upload(*known, "file", "a.html", "text/html", b"<p>")
    except RuntimeError as error:
        return str(error)
refused = refusal()
# The day's quota is no matter of a moment.
asked = []
def full(request, **how):
    asked.append(request.selector)
    told = json.dumps({"code": "rate_limited", "temporary": True, "retry_after_ms": 86_400_000}).encode()
    raise urllib.error.HTTPError(request.full_url, 429, "", {}, io.BytesIO(told))
urllib.request.urlopen = full
assert [refusal(), len(asked)] == ["rate_limited", 1], asked
urllib.request.urlopen = real
signature = sign(told["secret"], told["id"], told["at"], told["body"].encode())
now = int(time.time())
headers = {"webhook-id": "a", "webhook-timestamp": str(now), "webhook-signature": "v1,AAAA " + sign(told["secret"], "a", now, b"{}")}
ours = [is_ours(told["secret"], headers, b"{}"), is_ours(told["secret"], headers, b"[]"), is_ours(told["secret"], {**headers, "webhook-timestamp": str(now - 400)}, b"{}")]
print(json.dumps([sent["seq"] < after["seq"], refused, signature, ours]))
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
