import assert from "node:assert/strict";
import { test } from "node:test";
import * as chats from "../src/chat";
import { idle } from "../src/connection";
import type { Attachment, Request } from "../src/protocol";
import { view } from "../src/view";
import { AT, created, lines, of, room, talking } from "./support";

const river: Attachment = { upload_id: "u1", name: "river.png", size: 900, content_type: "image/png", width: 3, height: 2 };
const plan: Attachment = { upload_id: "u2", name: "plan.pdf", size: 5_000, content_type: "application/pdf" };
const data = (all: Request[]) => of(all, "message.send").map((one) => ("data" in one ? one.data : {}));

test("a message has its files, and the same of them each time it is sent", () => {
  const chat = talking();
  const first = data(chats.send(chat, { text: "", kind: "image", files: [river] }, "a", AT));
  assert.deepEqual(first, [{ room_id: "r", client_msg_id: "a", kind: "image", attachments: [{ upload_id: "u1", width: 3, height: 2 }] }]);
  const again = chats.ready(chat, { epoch: "e1", rooms: [room({ last_seq: 10, recovered: true })] });
  assert.deepEqual(data(again), first);
  // Also when it was kept over a reload.
  const kept = chats.empty("ada", JSON.parse(JSON.stringify(chat.outbox)) as chats.Unsent[]);
  assert.deepEqual(data(chats.ready(kept, { epoch: "e1", rooms: [room({ last_seq: 10, recovered: true })] })), first);
});

test("what waits and what is stored shows the same files", () => {
  const chat = talking();
  chats.send(chat, { text: "Look", kind: "image", files: [river] }, "a", AT);
  const shown = [{ ...river, kind: "image", room_id: "r" }];
  assert.deepEqual(lines(chat).at(-1)?.files, shown);
  chats.event(chat, created(11, { kind: "image", sender_id: "ada", client_msg_id: "a", text: "Look", attachments: [river] }));
  assert.deepEqual(lines(chat).at(-1)?.files, shown);
  assert.equal(lines(chat).at(-1)?.text, "Look");
});

test("a list says what a message without words is", () => {
  const chat = talking();
  const preview = () => view("Ada", chat, idle).rooms[0]?.preview;
  for (const [seq, kind, one, said] of [[11, "image", river, "Photo"], [12, "file", plan, "plan.pdf"], [13, "voice", { ...plan, name: "voice-note.webm" }, "Voice note"]] as const) {
    chats.event(chat, created(seq, { kind, text: null, attachments: [one] }));
    assert.equal(preview(), said);
    assert.equal(lines(chat).at(-1)?.text, "");
  }
  chats.event(chat, created(14, { kind: "image", text: null, attachments: [], deleted_at: AT }));
  assert.equal(lines(chat).at(-1)?.files, undefined);
});

test("a file that is not what it is called is said to be, and the message stays", () => {
  const chat = talking();
  chats.send(chat, { text: "Look", kind: "image", files: [river] }, "a", AT);
  chats.reply(chat, { type: "message.send", data: { room_id: "r", client_msg_id: "a", kind: "image", text: "Look" } }, { type: "error", error: { code: "unsupported_media", message: "no", temporary: false } });
  const { error, text, unsent } = lines(chat).at(-1) ?? {};
  assert.deepEqual([error, text, unsent], ["Not sent: the file is not of the type that its name says", "Look", "a"]);
});
