// Passages: selected with the mouse or word by word with the arrows, then named by a digit. Offsets count characters (not
// UTF-16 units) of a response's assistant turns joined by two line breaks, as they are shown in the exact view.
const JOINT = "\n\n";

function spansForm(form, sheet, root) {
  const { values } = sheet;
  values.spans ??= [];
  let words = { place: 0, first: -1, last: -1 };
  const list = element("ul", { className: "passages" });
  const hint = element("p", { className: "hint" });
  const sources = () => [...document.querySelectorAll("[data-column]")].map((part) => [...part.querySelectorAll(".said .exact")]);

  const draw = () => {
    list.replaceChildren(
      ...values.spans.map((span, number) => {
        const remove = element("button", { type: "button", className: "remove", ariaLabel: `Remove ${span.label}: ${span.text}` }, "×");
        remove.addEventListener("click", () => drop(number));
        const where = form.columns > 1 ? ` in ${String.fromCharCode(65 + span.place)}` : "";
        return element("li", {}, element("b", {}, span.label + where), ` ${span.text} `, remove);
      }),
    );
    hint.textContent = values.spans.length ? "" : "Select a passage, then press its digit. Nothing marked: Enter sends that.";
    paint(values.spans, form.labels, sources());
  };
  const drop = (number) => {
    values.spans.splice(number, 1);
    sheet.keep();
    draw();
  };
  const add = (label) => {
    const passage = selected(sources());
    if (!passage) return void (hint.textContent = "First select a passage: with the mouse, or with the arrows.");
    const same = (one) => one.label === label && one.place === passage.place && one.start === passage.start && one.text === passage.text;
    if (!values.spans.some(same)) values.spans.push({ ...passage, label });
    sheet.keep();
    draw();
  };
  const move = (key, extends_) => {
    const turns = sources()[words.place] ?? [];
    const all = wordsOf(turns);
    if (!all.length) return;
    const sentence = key === "ArrowDown" || key === "ArrowUp";
    const forward = key === "ArrowRight" || key === "ArrowDown";
    let { first, last } = words;
    const from = extends_ ? last : forward ? last : first;
    let to = from + (forward ? 1 : -1);
    if (sentence) while (all[to] && !(forward && extends_ ? all[to].ends : to === 0 || all[to - 1].ends)) to += forward ? 1 : -1;
    to = Math.max(0, Math.min(all.length - 1, to));
    [first, last] = extends_ && first >= 0 ? [first, Math.max(first, to)] : [to, to];
    words = { ...words, first, last };
    const range = document.createRange();
    range.setStart(all[first].node, all[first].start);
    range.setEnd(all[last].node, all[last].end);
    const selection = getSelection();
    selection.removeAllRanges();
    selection.addRange(range);
    range.startContainer.parentElement.closest(".long")?.classList.add("open");
    scrollTo(range);
  };
  const labels = form.labels.map(({ label, key }) => option(label, key, () => add(label)));
  // A press on a label's button must not take the selection away.
  for (const button of labels) button.addEventListener("mousedown", (event) => event.preventDefault());
  root.append(list, hint, element("div", { className: "options" }, ...labels, sendButton(sheet)));
  requestAnimationFrame(draw);
  return {
    keys: [
      ["← →", "select the word before or after"],
      ["↑ ↓", "go a sentence back or on"],
      ["Shift with arrows", "select more, or less"],
      ...(form.columns > 1 ? [["N", "go to the next response"]] : []),
      ["digits", "say what the selected passage is"],
      ["Backspace", "remove the last passage"],
      ["Enter", "send"],
    ],
    press(key, shift) {
      if (key.startsWith("Arrow")) return move(key, shift), true;
      if (key === "Enter") return sheet.send(), true;
      if (key === "Backspace") return values.spans.length && drop(values.spans.length - 1), true;
      if (/^n$/i.test(key) && form.columns > 1) {
        words = { place: (words.place + 1) % form.columns, first: -1, last: -1 };
        return move("ArrowRight", false), true;
      }
      const chosen = form.labels.find((one) => one.key === key);
      if (chosen) add(chosen.label);
      return Boolean(chosen);
    },
    end: () => CSS.highlights?.clear(),
  };
}

const shownText = (turns) => turns.map((turn) => turn.textContent).join(JOINT);
const characters = (text) => [...text].length;

// The selection as {place, start, text}, null where there is none within one response.
function selected(all) {
  const selection = getSelection();
  if (!selection.rangeCount || selection.isCollapsed) return null;
  const range = selection.getRangeAt(0);
  for (const [place, turns] of all.entries()) {
    const start = offset(turns, range.startContainer, range.startOffset);
    const end = offset(turns, range.endContainer, range.endOffset);
    if (start === null || end === null) continue;
    const whole = shownText(turns);
    const raw = whole.slice(start, end);
    const text = raw.trim(); // a drag takes a blank along more often than it means it
    if (!text) return null;
    const from = start + raw.indexOf(text);
    return { place, start: characters(whole.slice(0, from)), text };
  }
  return null;
}

function offset(turns, node, at) {
  let before = 0;
  for (const turn of turns) {
    if (turn.contains(node)) {
      const range = document.createRange();
      range.setStart(turn, 0);
      range.setEnd(node, at);
      return before + range.toString().length;
    }
    before += turn.textContent.length + JOINT.length;
  }
  return null;
}

function wordsOf(turns) {
  const words = [];
  for (const turn of turns)
    for (const node of turn.childNodes)
      for (const match of node.data.matchAll(/\S+/g)) {
        const end = match.index + match[0].length;
        words.push({ node, start: match.index, end, ends: /[.!?…。！？]["'”’)]*$/.test(match[0]) || node.data[end] === "\n" });
      }
  return words;
}

// What is marked, without a change to the text: the browser paints ranges.
function paint(spans, labels, all) {
  if (!CSS.highlights) return;
  CSS.highlights.clear();
  labels.forEach(({ label }, number) => {
    const ranges = spans.filter((span) => span.label === label).map((span) => rangeOf(span, all[span.place] ?? [])).filter(Boolean);
    if (ranges.length) CSS.highlights.set(`rmkit-span-${number % 6}`, new Highlight(...ranges));
  });
}

function rangeOf(span, turns) {
  let start = [...shownText(turns)].slice(0, span.start).join("").length;
  for (const turn of turns) {
    const node = turn.firstChild;
    if (node && start < node.data.length) {
      const range = document.createRange();
      range.setStart(node, start);
      range.setEnd(node, Math.min(start + span.text.length, node.data.length));
      return range;
    }
    start -= turn.textContent.length + JOINT.length;
  }
  return null;
}

function scrollTo(range) {
  const main = document.querySelector("[data-testid=stMain]");
  const box = range.getBoundingClientRect();
  const bar = document.querySelector(".st-key-answer-bar")?.getBoundingClientRect().top ?? innerHeight;
  if (box.bottom > bar - 20) main?.scrollBy(0, box.bottom - bar + 60);
  if (box.top < 70) main?.scrollBy(0, box.top - 110);
}
