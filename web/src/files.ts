// Brings files to where the server says, and asks where those of messages are. The bytes go straight from here to
// where files are kept, and come straight from there.
//
// Invariant: what is in the tray is sent only when all of it has arrived; a ticket is asked for anew for each try.
//
// Next: composer.ts.
import type { Attachment, FileKind, Frame, Request } from "./protocol";
import type { TrayItem } from "./shapes";

const IMAGES = new Set(["image/jpeg", "image/png", "image/gif", "image/webp", "image/avif"]);
/** A URL is asked for anew before it ends. */
const SPARE_MS = 30_000;
const GATHER_MS = 20;
const URLS_MAX = 100;
/** Of these a hash is made: all of it is in memory for that. */
const HASHED_BYTES_MAX = 64 << 20;
const REFUSED: Record<string, string> = { unsupported_media: "files of this type are not taken", too_large: "it is too large", unknown_type: "this server takes no files" };
const PIECE_MS = 200;
const RECORDINGS = ["audio/webm", "audio/ogg", "audio/mp4"];

interface Item extends TrayItem { room_id: string; file: File; local: string; attachment?: Attachment; duration_ms?: number; going?: XMLHttpRequest }
type Measured = Pick<Attachment, "width" | "height" | "placeholder">;
export type Group = { kind: FileKind; files: Attachment[] };

export interface Files {
  add(room_id: string, all: Iterable<File>, duration_ms?: number): void; remove(id: number): void; again(id: number): void;
  tray(room_id: string): TrayItem[]; take(room_id: string): Group[];
  url(room_id: string, upload_id: string, fresh?: boolean): Promise<string>;
  heard(request: Request, frame: Frame): void; ready(): void; forget(): void;
}

export function files(ask: (request: Request) => void, changed: () => void): Files {
  let items: Item[] = [];
  let [next, timer] = [1, 0];
  const tickets = new Map<Request, Item>();
  const urls = new Map<string, { url: string; until: number }>();
  const wanted = new Map<string, { room_id: string; give: ((url: string) => void)[] }>();

  async function begin(item: Item): Promise<void> {
    Object.assign(item, { state: "waiting", part: 0, error: "" });
    changed();
    const [measured, sha256] = await Promise.all([measure(item), hash(item.file)]);
    if (!items.includes(item)) return;
    const { room_id, kind, name, size, file, duration_ms } = item;
    const content_type = file.type.split(";")[0] || "application/octet-stream";
    item.attachment = { upload_id: "", name, size, content_type, ...measured, ...(duration_ms !== undefined && { duration_ms }) };
    const request: Request = { type: "upload.create", data: { room_id, kind, name, size, content_type, ...(sha256 && { sha256 }) } };
    tickets.set(request, item);
    ask(request);
  }

  function bring(item: Item, { upload_id = "", url = "", fields = {}, expires_at = "" }: NonNullable<Frame["data"]>): void {
    const form = new FormData();
    for (const [name, value] of Object.entries(fields)) form.append(name, value);
    form.append("file", item.file);
    const going = new XMLHttpRequest();
    going.upload.onprogress = ({ loaded, total }) => {
      item.part = loaded / Math.max(total, 1);
      changed();
    };
    going.onload = () => {
      if (going.status >= 300) return failed(item, whyNot(going, expires_at));
      if (item.attachment) item.attachment.upload_id = upload_id;
      // Whoever sent it need not fetch it.
      urls.set(upload_id, { url: item.local, until: Infinity });
      Object.assign(item, { state: "there", part: 1, going: undefined });
      changed();
    };
    going.onerror = () => failed(item, "the connection broke");
    going.open("POST", url);
    going.send(form);
    Object.assign(item, { state: "going", going });
    changed();
  }

  function failed(item: Item, error: string): void {
    Object.assign(item, { state: "failed", error, going: undefined });
    changed();
  }

  function askUrls(): void {
    timer = 0;
    const rooms = new Map<string, string[]>();
    for (const [upload_id, { room_id }] of wanted) rooms.set(room_id, [...(rooms.get(room_id) ?? []), upload_id]);
    for (const [room_id, all] of rooms)
      for (let at = 0; at < all.length; at += URLS_MAX) ask({ type: "attachment.urls", data: { room_id, upload_ids: all.slice(at, at + URLS_MAX) } });
  }

  return {
    add(room_id, all, duration_ms) {
      for (const file of all) {
        const kind = duration_ms !== undefined ? "voice" : IMAGES.has(file.type) ? "image" : "file";
        const item: Item = { id: next++, room_id, file, kind, name: file.name || "file", size: file.size, state: "waiting", part: 0, error: "", local: URL.createObjectURL(file), duration_ms };
        items.push(item);
        void begin(item);
      }
    },
    remove(id) {
      const item = items.find((one) => one.id === id);
      item?.going?.abort();
      if (item) URL.revokeObjectURL(item.local);
      items = items.filter((one) => one !== item);
      changed();
    },
    again(id) {
      const item = items.find((one) => one.id === id);
      if (item?.state === "failed") void begin(item);
    },
    tray: (room_id) => items.filter((one) => one.room_id === room_id).map(({ id, kind, name, size, state, part, error }) => ({ id, kind, name, size, state, part, error })),
    take(room_id) {
      const all = items.filter((one) => one.room_id === room_id && one.state === "there");
      items = items.filter((one) => !all.includes(one));
      const groups: Group[] = [];
      for (const { kind, attachment } of all) {
        const most = kind === "voice" ? 1 : 10;
        const group = groups.find((one) => one.kind === kind && one.files.length < most);
        if (attachment && group) group.files.push(attachment);
        else if (attachment) groups.push({ kind, files: [attachment] });
      }
      return groups;
    },
    url(room_id, upload_id, fresh = false) {
      const known = urls.get(upload_id);
      if (known && !(fresh && known.until !== Infinity) && known.until > Date.now() + SPARE_MS) return Promise.resolve(known.url);
      return new Promise((give) => {
        const one = wanted.get(upload_id) ?? { room_id, give: [] };
        one.give.push(give);
        wanted.set(upload_id, one);
        timer ||= window.setTimeout(askUrls, GATHER_MS);
      });
    },
    heard(request, { data = {}, error }) {
      if (error?.temporary) return;
      if (request.type === "upload.create") {
        const item = tickets.get(request);
        tickets.delete(request);
        if (item && items.includes(item)) error ? failed(item, REFUSED[error.code] ?? error.message) : bring(item, data);
      }
      if (request.type !== "attachment.urls") return;
      for (const { upload_id, url, expires_at } of data.urls ?? []) {
        urls.set(upload_id, { url, until: Date.parse(expires_at) });
        for (const give of wanted.get(upload_id)?.give ?? []) give(url);
      }
      // What is missing, or may not be seen, stays as it is shown.
      for (const upload_id of request.data.upload_ids) wanted.delete(upload_id);
    },
    ready() {
      // Those in flight when a connection ended are not answered.
      const waiting = [...tickets.keys()];
      for (const request of waiting) ask(request);
      if (wanted.size) askUrls();
    },
    forget() {
      for (const { going, local } of items) going?.abort(), URL.revokeObjectURL(local);
      items = [];
      for (const all of [tickets, urls, wanted]) all.clear();
    },
  };
}

/** What the place of the files says, in words: a store, or this server. */
function whyNot({ status, responseText }: XMLHttpRequest, expires_at: string): string {
  if (/expired/i.test(responseText) || Date.now() > Date.parse(expires_at)) return "it took too long to bring it";
  if (status === 413 || /EntityTooLarge/.test(responseText)) return "it is too large";
  if (status === 507) return "there is no room for it";
  return status >= 500 ? "it cannot be taken now" : `it was refused (${status})`;
}

/** Its pixels, and its mean colour, to be shown until it is there. */
async function measure({ kind, file }: Item): Promise<Measured> {
  if (kind !== "image") return {};
  try {
    const image = await createImageBitmap(file);
    const { width, height } = image;
    const canvas = Object.assign(document.createElement("canvas"), { width: 1, height: 1 });
    const brush = canvas.getContext("2d");
    brush?.drawImage(image, 0, 0, 1, 1);
    image.close();
    const [red = 0, green = 0, blue = 0] = brush?.getImageData(0, 0, 1, 1).data ?? [];
    const placeholder = `#${[red, green, blue].map((one) => one.toString(16).padStart(2, "0")).join("")}`;
    return { width, height, placeholder };
  } catch {
    return {}; // Not a picture after all: the server will say so.
  }
}

async function hash(file: File): Promise<string> {
  // Not there where the page did not come by https.
  if (!crypto.subtle || file.size > HASHED_BYTES_MAX) return "";
  const sum = new Uint8Array(await crypto.subtle.digest("SHA-256", await file.arrayBuffer()));
  return [...sum].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

export const canRecord = (): boolean => "mediaDevices" in navigator && "MediaRecorder" in window;

/** Records until the function that is returned is called, which gives what was heard and how long it is. */
export async function record(): Promise<() => Promise<[File, number]>> {
  const stream = await navigator.mediaDevices.getUserMedia({ audio: true });
  const mimeType = RECORDINGS.find((one) => MediaRecorder.isTypeSupported(one));
  const recorder = new MediaRecorder(stream, { mimeType });
  const pieces: Blob[] = [];
  const began = Date.now();
  // It goes on when the first of it has come, not while somebody is still asked.
  await new Promise((done) => {
    recorder.ondataavailable = ({ data }) => done(pieces.push(data));
    recorder.start(PIECE_MS);
  });
  return () => new Promise((give) => {
    const duration_ms = Date.now() - began;
    recorder.onstop = () => {
      for (const track of stream.getTracks()) track.stop();
      const type = recorder.mimeType.split(";")[0] ?? "";
      give([new File(pieces, `voice-note.${type.split("/")[1]}`, { type }), duration_ms]);
    };
    recorder.stop();
  });
}
