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
    const open = long.classList.toggle("open");
    button.textContent = label(open);
    button.setAttribute("aria-expanded", String(open));
  });
  long.after(button);
}
