// Where a message is written: a draft for each room, a reply or an edit, and names after an @.
//
// Next: panels.ts.
import { button, get, make, said, sync } from "./dom";
import { canRecord, record } from "./files";
import { openPicker } from "./menu";
import type { Actions, Line, TrayItem, View } from "./shapes";
import { asked, mentioned } from "./text";

interface Draft { text: string; chosen: Map<string, string>; reply?: Line; edit?: Line; before?: string }
const NAMES_MAX = 8;

export interface Composer { update(view: View): void; reply(line: Line): void; edit(line: Line): void; anew(line: Line, answered?: Line): void; focus(): void; forget(): void }

export function compose(actions: Actions, lastOwn: () => Line | undefined): Composer {
  const [form, text, list, context] = [get<HTMLFormElement>("composer"), get<HTMLTextAreaElement>("text"), get("names"), get("context")];
  const drafts = new Map<string, Draft>();
  let [open, people, at, chosen] = ["", [] as { id: string; name: string }[], 0, 0];
  let draft = fresh();
  let tray: TrayItem[] = [];
  let stop: (() => Promise<[File, number]>) | undefined;

  function fresh(): Draft {
    return { text: "", chosen: new Map() };
  }

  function show(): void {
    const { reply, edit } = draft;
    context.hidden = !reply && !edit;
    get("context-text").textContent = edit ? "Editing your message" : reply ? `Reply to ${reply.author}: ${reply.text}` : "";
    form.dataset.mode = edit ? "edit" : reply ? "reply" : "";
    form.querySelector<HTMLElement>("button:not([type])")!.textContent = edit ? "Save" : "Send";
  }

  function end(): void {
    if (draft.edit) text.value = draft.before ?? "";
    Object.assign(draft, { reply: undefined, edit: undefined, before: undefined });
    show();
    text.focus();
  }

  form.onsubmit = (event) => {
    event.preventDefault();
    const said = text.value.trim();
    const { edit, reply, chosen: names } = draft;
    if (edit ? !said : (!said && !tray.length) || tray.some(({ state }) => state !== "there")) return;
    if (edit) {
      if (edit.seq && said !== edit.text) actions.edit(edit.seq, said);
      end();
    } else {
      actions.send({ text: said, ...(reply?.seq && { reply_to_seq: reply.seq }), ...(names.size && { mentions: mentioned(said, names) }) });
      draft = fresh();
      text.value = "";
      show();
    }
    suggest();
    actions.typing(false);
  };

  text.onkeydown = (event) => {
    if (event.isComposing) return;
    if (!list.hidden && ["ArrowDown", "ArrowUp", "Enter", "Tab", "Escape"].includes(event.key)) {
      event.preventDefault();
      event.stopPropagation();
      if (event.key === "Escape") return hideNames();
      if (event.key === "Enter" || event.key === "Tab") return list.children[chosen]?.dispatchEvent(new Event("pick")), undefined;
      chosen = (chosen + (event.key === "ArrowDown" ? 1 : -1) + list.children.length) % list.children.length;
      return mark();
    }
    if (event.key === "Escape" && (draft.reply || draft.edit)) return event.stopPropagation(), end();
    const own = event.key === "ArrowUp" && !text.value && !draft.edit ? lastOwn() : undefined;
    if (own) return event.preventDefault(), self.edit(own);
    // On a phone there is no other way to a new line.
    if (event.key !== "Enter" || event.shiftKey || matchMedia("(pointer: coarse)").matches) return;
    event.preventDefault();
    form.requestSubmit();
  };
  text.oninput = () => {
    suggest();
    if (!draft.edit) actions.typing(text.value.trim() !== "");
  };
  text.onblur = () => {
    hideNames();
    actions.typing(false);
  };
  get("context-end").onclick = end;
  get("smile").onclick = () => openPicker(get("smile"), (emoji) => {
    text.focus();
    text.setRangeText(emoji, text.selectionStart, text.selectionEnd, "end");
    text.oninput?.(new InputEvent("input"));
  });

  get("attach").onclick = () => get("attach-input").click();
  get("attach-input").onchange = () => {
    actions.attach([...(get<HTMLInputElement>("attach-input").files ?? [])]);
    get<HTMLInputElement>("attach-input").value = "";
    text.focus();
  };
  get("record").onclick = async () => {
    const voice = get("record");
    try {
      if (stop) {
        const [file, duration_ms] = await stop();
        actions.attach([file], duration_ms);
        stop = undefined;
      } else stop = await record();
    } catch {
      actions.said("No sound can be recorded here");
      stop = undefined;
    }
    voice.textContent = stop ? "■" : "●";
    voice.ariaPressed = String(Boolean(stop));
    voice.ariaLabel = voice.title = stop ? "Stop recording" : "Record a voice note";
  };
  text.onpaste = (event) => {
    const all = [...(event.clipboardData?.files ?? [])];
    if (!all.length || get("attach").hidden) return;
    event.preventDefault();
    actions.attach(all);
  };
  const place = form.closest("main") ?? form;
  const carries = (event: DragEvent) => Boolean(event.dataTransfer?.types.includes("Files")) && Boolean(open) && !get("attach").hidden;
  place.addEventListener("dragover", (event) => {
    if (!carries(event)) return;
    event.preventDefault();
    place.classList.add("dropping");
  });
  for (const type of ["dragleave", "drop"] as const) place.addEventListener(type, () => place.classList.remove("dropping"));
  place.addEventListener("drop", (event) => {
    if (!carries(event)) return;
    event.preventDefault();
    actions.attach([...(event.dataTransfer?.files ?? [])]);
  });

  function drawTray(): void {
    get("tray").hidden = !tray.length;
    sync(get("tray"), tray, ({ id }) => String(id), ({ id, name, state, part, error }) => {
      const told = { waiting: "waiting", going: `${Math.round(part * 100)} %`, there: "ready", failed: error }[state];
      const element = make("li", state, said("span", "", name), make("small", "", told), ...(state === "failed" ? [button("plain link", "Try again", () => actions.attachAgain(id))] : []),
        button("plain icon", `Remove ${name}`, () => actions.detach(id), "✕"));
      element.style.setProperty("--part", `${Math.round(part * 100)}%`);
      return element;
    });
    form.querySelector<HTMLButtonElement>("button:not([type])")!.disabled = !draft.edit && tray.some(({ state }) => state !== "there");
  }

  function hideNames(): void {
    list.hidden = true;
    text.removeAttribute("aria-activedescendant");
  }

  function mark(): void {
    [...list.children].forEach((one, index) => (one.ariaSelected = String(index === chosen)));
    text.setAttribute("aria-activedescendant", list.children[chosen]?.id ?? "");
    list.children[chosen]?.scrollIntoView({ block: "nearest" });
  }

  function suggest(): void {
    const wanted = draft.edit ? undefined : asked(text.value, text.selectionStart);
    const prefix = wanted?.prefix.toLocaleLowerCase() ?? "";
    const fitting = wanted ? people.filter(({ name }) => name.toLocaleLowerCase().startsWith(prefix)).slice(0, NAMES_MAX) : [];
    if (!wanted || !fitting.length) return hideNames();
    at = wanted.at;
    chosen = 0;
    list.replaceChildren(...fitting.map(({ id, name }, index) => {
      const option = said("li", "", id === "all" ? "all: everybody here" : name);
      Object.assign(option, { id: `name-${index}`, role: "option", onmousedown: (event: Event) => (event.preventDefault(), pick(id, name)) });
      option.addEventListener("pick", () => pick(id, name));
      return option;
    }));
    list.hidden = false;
    mark();
  }

  function pick(id: string, name: string): void {
    text.setRangeText(`@${name} `, at, text.selectionStart, "end");
    draft.chosen.set(name, id);
    hideNames();
    text.focus();
  }

  const self: Composer = {
    update({ room, textMax, canFiles, tray: files = [] }) {
      const key = room?.key ?? "";
      get("attach").hidden = !canFiles;
      get("record").hidden = !canFiles || !canRecord();
      tray = files;
      drawTray();
      people = room?.mentions ?? [];
      text.maxLength = textMax;
      const severed = get("severed");
      severed.hidden = !room?.blocked;
      form.classList.toggle("off", Boolean(room?.blocked));
      if (room?.blocked && severed.dataset.of !== room.blocked)
        severed.replaceChildren(make("span", "", `You blocked ${room.blockedName}. `), button("soft", "Unblock", () => actions.block(room.blocked, false)));
      severed.dataset.of = room?.blocked ?? "";
      if (key === open) return;
      drafts.set(open, { ...draft, text: text.value });
      open = key;
      draft = drafts.get(key) ?? fresh();
      text.value = draft.text;
      hideNames();
      show();
    },
    reply(line) {
      if (draft.edit) end();
      draft.reply = line;
      show();
      text.focus();
    },
    edit(line) {
      Object.assign(draft, { edit: line, reply: undefined, before: draft.edit ? draft.before : text.value });
      text.value = line.text;
      show();
      text.focus();
      text.setSelectionRange(text.value.length, text.value.length);
    },
    anew(line, answered) {
      if (draft.edit) end();
      text.value = [line.text, text.value].filter(Boolean).join("\n");
      for (const [name, id] of line.says ?? []) draft.chosen.set(name, id);
      draft.reply ??= answered;
      show();
      text.focus();
    },
    focus: () => text.focus(),
    forget() {
      drafts.clear();
      [draft, open, text.value] = [fresh(), "", ""];
      show();
    },
  };
  return self;
}
