// The answer's controls. The server says what can be answered, this draws it, listens to the keys of the whole page, and
// hands back what was chosen. What is chosen or typed is kept as a draft with every change; nothing is drawn anew for it.
const KEEP_AFTER_MS = 300;

export default function ({ data, parentElement, setTriggerValue }) {
  const root = parentElement.querySelector(".rmkit-answer");
  const sheet = root.sheet;
  if (data.work) countWork(data.work);
  if (sheet?.id === data.id && sheet.attempt === data.attempt) {
    root.removeAttribute("aria-busy");
    sheet.sent = false; // the server has run and the item is the same: what was sent did not arrive, or was refused
    return;
  }
  sheet?.end();
  if (sheet?.id !== data.id && !data.preview) begin();
  root.sheet = open(root, data, (name, value) => setTriggerValue(name, value));
}

// A new item is read from its beginning; what lies under the answer's controls must not shine through.
function begin() {
  document.querySelector("[data-testid=stMain]")?.scrollTo(0, 0);
  const app = document.querySelector("[data-testid=stApp]");
  if (app) document.documentElement.style.setProperty("--studio-background", getComputedStyle(app).backgroundColor);
}

function open(root, data, tell) {
  const values = structuredClone(data.draft);
  const sheet = { id: data.id, attempt: data.attempt, sent: false, values };
  let timer = null;

  const store = async () => {
    clearTimeout(timer);
    timer = null;
    if (!data.path) return;
    const body = JSON.stringify(values);
    await fetch(data.path, { method: "PUT", body, keepalive: body.length < 60_000 }).catch(() => {});
  };
  sheet.keep = () => {
    clearTimeout(timer);
    timer = setTimeout(store, KEEP_AFTER_MS);
  };
  sheet.send = () => {
    if (sheet.sent || data.preview) return;
    sheet.sent = true;
    root.setAttribute("aria-busy", "true");
    clearTimeout(timer);
    timer = null;
    tell("answer", { id: data.id, values });
  };
  sheet.look = async () => {
    if (data.preview) return;
    if (timer !== null) await store();
    tell("look", { id: data.id });
  };

  root.replaceChildren();
  root.setAttribute("aria-label", "Your answer");
  root.removeAttribute("aria-busy");
  const form = FORMS[data.form.kind](data.form, sheet, root);
  if (data.refused) root.prepend(element("p", { className: "refused", role: "alert" }, data.refused));
  const help = keysHelp([...form.keys, ...data.keys]);
  root.append(help);

  const onKey = (event) => {
    if (!root.isConnected) return sheet.end(); // another page of the studio is open by now
    if (event.ctrlKey && event.key === "Enter" && root.contains(event.target)) return sheet.send();
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (document.querySelector("[role=dialog], [data-baseweb=popover] [role=listbox]")) return;
    if (typesInto(event.target)) {
      if (event.key === "Escape" && root.contains(event.target)) root.focus({ preventScroll: true });
      return;
    }
    if (event.key === "?") return help.open ? help.close() : help.showModal();
    if (help.open || event.repeat || sheet.sent) return;
    if (event.key === "t" || event.key === "T") {
      const field = root.querySelector("textarea:not([hidden])");
      if (!field) return;
      field.focus();
      return event.preventDefault();
    }
    // Enter on a button, and a key on a control elsewhere on the page, are that control's own.
    const own = root.contains(event.target) || event.target === document.body;
    if (event.key === "Enter" && event.target.closest?.("button, a, summary")) return;
    if (!own && event.target.closest?.("[role=combobox], [role=radiogroup], summary") && event.key.length > 1) return;
    if (form.press(event.key, event.shiftKey)) event.preventDefault();
  };
  if (data.preview) {
    sheet.end = () => form.end?.();
    return sheet;
  }
  document.addEventListener("keydown", onKey);
  const onHide = () => timer !== null && store();
  addEventListener("pagehide", onHide);
  sheet.end = () => {
    if (timer !== null) store();
    document.removeEventListener("keydown", onKey);
    removeEventListener("pagehide", onHide);
    form.end?.();
  };
  (form.begins ?? root).focus({ preventScroll: true });
  announce(data.refused || data.announce);
  return sheet;
}

// What the next item is, for people who listen to the page: one region for all items, or nothing would be read out.
function announce(text) {
  let region = document.getElementById("rmkit-live");
  if (!region) {
    region = element("div", { id: "rmkit-live", className: "rmkit-unseen", role: "status" });
    region.setAttribute("aria-live", "polite");
    document.body.append(region);
  }
  region.textContent = region.textContent === text ? `${text}.` : text;
}

function typesInto(target) {
  return target instanceof HTMLTextAreaElement || target instanceof HTMLSelectElement || target.isContentEditable ||
    (target instanceof HTMLInputElement && !["radio", "checkbox", "button"].includes(target.type));
}

function element(tag, properties, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  if (properties?.role) node.setAttribute("role", properties.role);
  node.append(...children);
  return node;
}

function keysHelp(keys) {
  const close = element("button", { type: "button" }, "Close");
  const rows = keys.map(([key, what]) => element("tr", {}, element("th", { scope: "row" }, element("kbd", {}, key)), element("td", {}, what)));
  const dialog = element("dialog", { className: "keys" }, element("h2", {}, "Keys"), element("table", {}, element("tbody", {}, ...rows)), close);
  dialog.setAttribute("aria-label", "Keys");
  close.addEventListener("click", () => dialog.close());
  return dialog;
}

function option(label, key, act) {
  const button = element("button", { type: "button", className: "option" }, element("span", {}, label));
  if (key !== null) {
    if (key !== label) button.append(element("kbd", { ariaHidden: "true" }, key));
    button.setAttribute("aria-keyshortcuts", key);
  }
  button.addEventListener("click", act);
  return button;
}

// Digits that are one number: one that could go on waits for its second digit, or Enter.
function digits(choose, hint) {
  let typed = "";
  const set = (text) => {
    typed = text;
    hint.textContent = text ? `${text}… a second digit, or Enter` : "";
  };
  return {
    press(key, keys) {
      if (key === "Enter" && keys.includes(typed)) {
        const whole = typed;
        set("");
        choose(whole);
        return true;
      }
      if (!/^\d$/.test(key)) {
        if (typed) set("");
        return false;
      }
      const whole = typed + key;
      const longer = keys.some((one) => one.length > whole.length && one.startsWith(whole));
      if (longer) set(whole);
      else {
        set(""); // also after a slip: what was typed before it is forgotten
        if (keys.includes(whole)) choose(whole);
      }
      return true;
    },
  };
}

function textField(label, value, change) {
  const area = element("textarea", { value, rows: 3 });
  area.addEventListener("input", () => change(area.value));
  return { area, node: element("label", { className: "field" }, element("span", {}, label), area) };
}

const sendButton = (sheet) => {
  const button = option("Send", "Enter", () => sheet.send());
  button.classList.add("send");
  return button;
};

const FORMS = {
  // One press is the answer.
  choices(form, sheet, root) {
    const { values } = sheet;
    if (form.text) {
      const field = textField(form.text, values.text ?? "", (text) => ((values.text = text), sheet.keep()));
      root.append(field.node);
    }
    const choose = (number) => ((values.choice = number), sheet.send());
    const hint = element("p", { className: "hint" });
    const row = form.options.map(({ label, key }, number) => option(label, key, () => choose(number)));
    if (form.label) root.append(element("p", { className: "question" }, form.label));
    root.append(hint, element("div", { className: "options" }, ...row));
    const keys = form.options.map(({ key }) => key);
    const typed = digits((key) => choose(keys.indexOf(key)), hint);
    const shown = keys.filter((key) => key !== null);
    const help = [[`${shown[0]} to ${shown.at(-1)}`, "choose, and go on"]];
    if (form.text) help.push(["T", "write why; Escape leaves the text"]);
    return { keys: help, press: (key) => typed.press(key, shown) };
  },

  // Rows (aspects, criteria, turns, or the place alone) by columns (responses), one cell at a time.
  grid(form, sheet, root) {
    const { values } = sheet;
    const { rows, columns } = form;
    const blank = rows.map(() => columns.map(() => null));
    values.cells = blank.map((row, r) => row.map((_, c) => values.cells?.[r]?.[c] ?? null));
    values.texts ??= {};
    const single = columns.length === 1 && !columns[0];
    const inLine = single || rows.length === 1; // one row or column of cells, which wraps where the page is narrow
    let at = [0, 0];
    const cells = rows.map((row, r) =>
      columns.map((_, c) => {
        const cell = element("button", { type: "button", className: "cell" });
        cell.addEventListener("click", () => go(r, c));
        return cell;
      }),
    );
    const question = element("p", { className: "question" });
    const anchors = element("p", { className: "hint" });
    const hint = element("p", { className: "hint" });
    const options = element("div", { className: "options" });
    const fields = new Map();
    const extra = element("div", {});
    const tray = element("p", { className: "tray" });
    const nameOf = (r, c) => [rows[r].label, columns[c]].filter(Boolean).join(" of ");
    const labelOf = (r, value) => rows[r].options.find((one) => one.value === value)?.label ?? "not yet";

    const draw = () => {
      const [r, c] = at;
      rows.forEach((row, y) =>
        columns.forEach((_, x) => {
          const value = values.cells[y][x];
          const short = value === null ? "·" : labelOf(y, value).split(":")[0];
          const name = single ? row.label : columns[x];
          cells[y][x].textContent = inLine ? `${name}: ${short}` : short;
          cells[y][x].setAttribute("aria-label", `${nameOf(y, x)}: ${labelOf(y, value)}`);
          cells[y][x].classList.toggle("current", y === r && x === c);
          if (y === r && x === c) cells[y][x].setAttribute("aria-current", "true");
          else cells[y][x].removeAttribute("aria-current");
        }),
      );
      question.textContent = (columns[c] ? `${columns[c]}: ` : "") + rows[r].question;
      anchors.textContent = rows[r].anchors ?? "";
      options.replaceChildren(
        ...rows[r].options.map(({ label, key, value }) => {
          const button = option(label, key, () => choose(value));
          button.setAttribute("aria-pressed", String(values.cells[r][c] === value));
          return button;
        }),
      );
      const edited = form.edit_value !== null && values.cells[r][c] === form.edit_value;
      for (const [row, field] of fields) field.area.hidden = field.node.hidden = row !== r || !edited;
      if (edited && !fields.has(r)) {
        const field = textField("New wording", values.texts[r] ?? rows[r].question, (text) => ((values.texts[r] = text), sheet.keep()));
        fields.set(r, field);
        extra.append(field.node);
      }
      if (form.tray) tray.textContent = order(values.cells[0], columns);
      mark(r, single ? null : c);
    };
    const go = (r, c) => {
      at = [r, c];
      draw();
      document.querySelector(`[data-column="${c}"].current-part, [data-row="${r}"].current-part`)?.scrollIntoView({ block: "nearest" });
    };
    const choose = (value) => {
      const [r, c] = at;
      values.cells[r][c] = values.cells[r][c] === value && form.edit_value !== value ? null : value;
      sheet.keep();
      const flat = values.cells.flat();
      const here = r * columns.length + c;
      const next = flat.findIndex((one, index) => one === null && index > here);
      const any = next < 0 ? flat.indexOf(null) : next;
      const stays = values.cells[r][c] === null || any < 0 || value === form.edit_value;
      go(...(stays ? at : [Math.floor(any / columns.length), any % columns.length]));
    };
    const typed = digits((key) => {
      const chosen = rows[at[0]].options.find((one) => one.key === key);
      if (chosen) choose(chosen.value);
    }, hint);
    const steps = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] };

    const table = inLine ? element("div", { className: "options" }, ...cells.flat()) : tableOf(rows, columns, cells);
    root.append(form.tray ? tray : "", table, question, anchors, hint, options, extra, sendButton(sheet));
    draw();
    return {
      keys: [
        ["digits", "choose, and go on to the next cell"],
        ["← → ↑ ↓", "go to another cell"],
        ["Backspace", "take the choice back"],
        ...(form.edit_value === null ? [] : [["T", "write the new wording; Escape leaves the text"]]),
        ["Enter", "send"],
      ],
      press(key) {
        const [r, c] = at;
        if (typed.press(key, rows[r].options.map((one) => one.key).filter((one) => one !== null))) return true;
        if (key === "Enter") return sheet.send(), true;
        if (key === "Backspace") {
          values.cells[r][c] = null;
          sheet.keep();
          return draw(), true;
        }
        if (!(key in steps)) return false;
        let [y, x] = [r + steps[key][0], c + steps[key][1]];
        if (columns.length === 1 && key === "ArrowRight") y = r + 1;
        if (columns.length === 1 && key === "ArrowLeft") y = r - 1;
        if (columns.length === 1) x = 0;
        if (cells[y]?.[x]) go(y, x);
        return true;
      },
      end: () => mark(null, null),
    };
  },

  // The text itself, from one of the responses.
  edit(form, sheet, root) {
    const { values } = sheet;
    values.place ??= 0;
    values.texts ??= {};
    const text = () => values.texts[values.place] ?? form.starts[values.place].text;
    const { area, node } = textField(form.label, text(), (now) => ((values.texts[values.place] = now), sheet.keep()));
    area.rows = 8;
    area.addEventListener("blur", () => sheet.look());
    const hint = element("p", { className: "hint" });
    const start = (place) => {
      values.place = place;
      area.value = text();
      sheet.keep();
      buttons.forEach((button, index) => button.setAttribute("aria-pressed", String(index === place)));
      mark(null, place);
    };
    const buttons = form.starts.length > 1 ? form.starts.map(({ name }, place) => option(`Start from ${name}`, String(place + 1), () => start(place))) : [];
    root.append(element("div", { className: "options" }, ...buttons), hint, node, sendButton(sheet));
    if (buttons.length) start(values.place);
    const keys = buttons.map((_, place) => String(place + 1));
    const typed = digits((key) => start(Number(key) - 1), hint);
    const help = [["T", "write; Escape leaves the text and shows what differs"], ["Ctrl Enter", "send, from the text too"], ["Enter", "send"]];
    return {
      begins: form.begin ? area : undefined,
      keys: buttons.length ? [["digits", "start from another response"], ...help] : help,
      press(key) {
        if (typed.press(key, keys)) return true;
        if (key !== "Enter") return false;
        sheet.send();
        return true;
      },
      end: () => mark(null, null),
    };
  },

  spans: (form, sheet, root) => spansForm(form, sheet, root),
};

function tableOf(rows, columns, cells) {
  const head = columns.map((name) => element("th", { scope: "col" }, name));
  const body = rows.map((row, r) =>
    element("tr", {}, element("th", { scope: "row", title: row.question }, row.label), ...cells[r].map((cell) => element("td", {}, cell))),
  );
  const top = element("thead", {}, element("tr", {}, element("td", {}), ...head));
  return element("table", { className: "grid" }, top, element("tbody", {}, ...body));
}

// Which responses stand at which place, equal places together.
function order(places, names) {
  const ranked = [...new Set(places.filter((place) => place !== null))].sort((a, b) => a - b);
  const at = (place) => names.filter((_, index) => places[index] === place);
  const parts = ranked.map((place) => `${place}. ${at(place).join(" = ")}`);
  const rest = at(null);
  return [...parts, rest.length ? `not yet: ${rest.join(", ")}` : ""].filter(Boolean).join("   ");
}

// The part of the item that the current cell is about.
function mark(row, column) {
  for (const part of document.querySelectorAll("[data-row], [data-column]")) {
    const { row: r, column: c } = part.dataset;
    part.classList.toggle("current-part", (c !== undefined && Number(c) === column) || (r !== undefined && Number(r) === row));
  }
}
