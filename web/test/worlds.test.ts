// Seeded worlds: a server with one room, a client, and everything that a connection can do to them. In the
// end the client has what the server has, whatever came late, twice, in pages or not at all.
import assert from "node:assert/strict";
import { test } from "node:test";
import * as chats from "../src/chat";
import type { Chat } from "../src/chat";
import type { Data, Frame, Message, Page, Request } from "../src/protocol";
import { AT, members } from "./support";

const WORLDS = 400;
const STEPS = 160;
const EMOJIS = ["👍", "🎉"];

/** Mulberry32: small, and the same everywhere. */
function chance(seed: number): () => number {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let mixed = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

interface State { message: Message; who: Map<string, Set<string>> }

class Server {
  events: Frame[] = [];
  states = new Map<number, State>();
  pins: number[] = [];
  get last() { return this.events.length; }

  /** Something happens in the room; returns its event. */
  act(pick: (below: number) => number): void {
    const seq = this.last + 1;
    const alive = [...this.states.values()].filter(({ message }) => !message.deleted_at);
    const target = alive[pick(alive.length)];
    const user_id = ["ada", "bob"][pick(2)] ?? "";
    const kind = target ? pick(9) : 0;
    if (!target || kind < 3) {
      const message = { seq, changed_seq: seq, kind: "text", sender_id: user_id, client_msg_id: `c${seq}`, text: `m${seq}`, created_at: AT, reactions: {} };
      this.states.set(seq, { message, who: new Map() });
      return this.tell("message.created", { message_seq: seq });
    }
    const { message, who } = target;
    message.changed_seq = seq;
    const message_seq = message.seq;
    if (kind < 5) {
      Object.assign(message, { text: `edited at ${seq}`, edited_at: AT });
      this.tell("message.updated", { message_seq });
    } else if (kind < 8) {
      const emoji = EMOJIS[pick(EMOJIS.length)] ?? "";
      const all = who.get(emoji) ?? new Set();
      const added = !all.has(user_id);
      if (added) all.add(user_id);
      else all.delete(user_id);
      who.set(emoji, all);
      this.tell("reaction.updated", { message_seq, user_id, emoji, added, count: all.size });
    } else if (pick(2)) {
      Object.assign(message, { text: "", deleted_at: AT });
      who.clear();
      this.pins = this.pins.filter((one) => one !== message_seq);
      this.tell("message.deleted", { message_seq, deleted_at: AT });
    } else {
      const isPinned = this.pins.includes(message_seq);
      this.pins = isPinned ? this.pins.filter((one) => one !== message_seq) : [message_seq, ...this.pins];
      this.tell(isPinned ? "message.unpinned" : "message.pinned", { message_seq });
    }
  }

  private tell(type: string, data: Data): void {
    this.events.push({ type, room_id: "r", seq: this.last + 1, ts: AT, data });
  }

  shown(seq: number, mine: boolean): Message {
    const { message, who } = this.states.get(seq)!;
    const reactions = [...who].filter(([, all]) => all.size).map(([emoji, all]) => [emoji, { count: all.size, ...(mine && { mine: all.has("ada") }) }]);
    return { ...message, reactions: Object.fromEntries(reactions) };
  }

  /** An event as it is told now: with its message in the state of now. */
  told(frame: Frame): Frame {
    const seq = frame.data?.message_seq ?? 0;
    const whole = frame.type === "message.created" || frame.type === "message.updated";
    return { ...frame, data: { ...frame.data, ...(whole && { message: this.shown(seq, false) }) } };
  }

  page(asked: Page): Data {
    const all = [...this.states.keys()];
    const limit = Math.min(asked.limit, 4);
    const last_seq = this.last;
    if (asked.after_seq !== undefined) {
      const after = asked.after_seq;
      const changed = all.map((seq) => this.shown(seq, true)).filter((one) => one.changed_seq > after).sort((one, other) => one.changed_seq - other.changed_seq);
      const messages = changed.slice(0, limit);
      const has_more = changed.length > limit;
      return { messages, has_more, last_seq, next_after_seq: has_more ? messages.at(-1)!.changed_seq : last_seq };
    }
    if (asked.around_seq !== undefined) {
      const [below, above] = [all.filter((seq) => seq <= asked.around_seq!), all.filter((seq) => seq > asked.around_seq!)];
      const kept = [...below.slice(-Math.max(1, limit / 2)), ...above.slice(0, Math.floor(limit / 2))];
      return { messages: kept.map((seq) => this.shown(seq, true)), has_more: kept.length < all.length, last_seq };
    }
    const before = all.filter((seq) => seq < (asked.before_seq ?? Infinity));
    return { messages: before.slice(-limit).map((seq) => this.shown(seq, true)), has_more: before.length > limit, last_seq };
  }
}

function live(seed: number): void {
  const random = chance(seed);
  const pick = (below: number) => Math.floor(random() * below);
  const server = new Server();
  const chat: Chat = chats.empty("ada");
  let asked: Request[] = [];
  let answers: [Request, Data][] = [];
  let frames: Frame[] = [];
  /** Told live up to here. */
  let told = 0;
  const ask = (all: Request[]) => void asked.push(...all.filter(({ type }) => type === "history.get" || type === "room.get"));
  const read = (request: Request): Data => (request.type === "history.get" ? server.page(request.data)
    : { room: { room_id: "r", kind: "direct", last_seq: server.last, members, pins: server.pins.map((message_seq) => ({ message_seq })) } });

  function connect(): void {
    [asked, answers, frames] = [[], [], []];
    const positions = chats.resume(chat)?.rooms;
    const position = positions?.["r"];
    const recovered = position !== undefined && random() < 0.5;
    const reason = position === undefined ? "not_requested" : "too_much";
    if (recovered) frames = server.events.slice(position).map((frame) => server.told(frame));
    told = server.last;
    ask(chats.ready(chat, { epoch: "e", rooms: [{ room_id: "r", kind: "direct", last_seq: told, recovered, ...(!recovered && { reason }) }] }));
  }

  function step(ends: boolean): void {
    const what = ends ? 30 + pick(60) : pick(100);
    if (what < 30) server.act(pick);
    else if (what < 50) {
      // What is live is encoded when it happens, or told again later from the store.
      for (; told < server.last && (ends || pick(4)); told++) frames.push(server.told(server.events[told]!));
    } else if (what < 65) {
      for (let count = 1 + pick(3); count > 0 && frames.length; count--) ask(chats.event(chat, frames.shift()!));
    } else if (what < 75) {
      const request = asked.splice(pick(asked.length), 1)[0];
      if (request) answers.push([request, read(request)]);
    } else if (what < 90) {
      const answer = answers.shift();
      if (answer) ask(chats.reply(chat, answer[0], { type: "ack", data: answer[1] }));
    } else if (what < 93) ask(chats.older(chat));
    else if (what < 94) connect();
    else if (what < 96 && server.states.size) ask(chats.jump(chat, "r", [...server.states.keys()][pick(server.states.size)]!));
    else if (what < 97) ask(chats.newer(chat));
    else if (what < 98 && told < server.last) {
      // The node gave up what this client was to be told.
      told = server.last;
      frames.push({ type: "room.gap", room_id: "r", data: { last_seq: told } });
    } else if (frames.length > 1 && what < 99) frames.splice(pick(frames.length - 1), 1);
  }

  for (let count = pick(12); count > 0; count--) server.act(pick);
  connect();
  ask(chats.open(chat, "r"));
  for (let count = STEPS; count > 0; count--) step(false);
  // An event that is lost at the very end would be noticed with the next one only.
  server.act(pick);
  for (let count = 4000; count > 0 && (asked.length || answers.length || frames.length || told < server.last); count--) step(true);

  const held = chat.rooms.get("r")!;
  assert.equal(held.catching, undefined, `seed ${seed}: still behind`);
  assert.equal(held.position, server.last, `seed ${seed}: position`);
  const inside = (seq: number) => seq >= held.from || (held.island && seq >= held.island.from && seq <= held.island.to);
  const wanted = [...server.states.keys()].filter(inside).map((seq) => server.shown(seq, true));
  const plain = ({ seq, text, changed_seq, deleted_at, reactions = {} }: Message, mine: (emoji: string) => boolean) =>
    ({ seq, text, changed_seq, deleted_at, reactions: Object.keys(reactions).sort().map((emoji) => [emoji, reactions[emoji]?.count, mine(emoji)]) });
  const seen = [...held.messages.values()].filter(({ seq }) => inside(seq)).sort((one, other) => one.seq - other.seq);
  assert.deepEqual(seen.map((one) => plain(one, (emoji) => one.mine.includes(emoji))), wanted.map((one) => plain(one, (emoji) => one.reactions?.[emoji]?.mine === true)), `seed ${seed}`);
  if (!held.stale) assert.deepEqual([...(held.pins ?? [])].map((pin) => pin.message_seq).sort(), [...server.pins].sort(), `seed ${seed}: pins`);
}

test(`${WORLDS} worlds end with what the server has`, () => {
  const [from, count] = [Number(process.env["CAFFIS_WEB_FROM"] ?? 1), Number(process.env["CAFFIS_WEB_WORLDS"] ?? WORLDS)];
  for (let seed = from; seed < from + count; seed++) live(seed);
});
