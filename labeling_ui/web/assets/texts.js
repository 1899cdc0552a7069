// Puts the server's HTML where it belongs, and folds what is long. Runs again only where the text has changed.
export default function ({ data, parentElement }) {
  const root = parentElement.querySelector(".rmkit-text");
  if (root.shown === data.html) return;
  root.shown = data.html;
  root.innerHTML = data.html;
  for (const long of root.querySelectorAll(".long")) fold(long);
}

function fold(long) {
  const button = document.createElement("button");
  const label = (open) => (open ? "Show less" : `Show all ${long.dataset.length} characters`);
  button.type = "button";
  button.textContent = label(false);
  button.setAttribute("aria-expanded", "false");
  button.addEventListener("click", () => {
    const rest = long.querySelector(".rest");
    if (rest) {
      rest.remove();
      long.querySelector(".exact").append(...blocks(rest.textContent));
    }
    const open = long.classList.toggle("open");
    button.textContent = label(open);
    button.setAttribute("aria-expanded", String(open));
  });
  long.after(button);
}

// The text in blocks of whole lines, of which the browser lays out only those in view.
function* blocks(text, size = 20_000) {
  let from = text.indexOf("\n") + 1; // up to here it goes on with the line that was cut
  yield text.slice(0, from);
  while (from < text.length) {
    const line = text.indexOf("\n", from + size);
    const to = line < 0 ? text.length : line + 1;
    const block = document.createElement("div");
    block.className = "block";
    block.textContent = text.slice(from, to);
    yield block;
    from = to;
  }
}
