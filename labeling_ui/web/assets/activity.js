// Counts how long a person works on an item: the time between signs of life (keys, pointer, scrolling), each gap up to
// `idle_s`, while the page is visible. The sum goes to the server at the beginning, now and then, and before each key or
// click that may be the answer; where the answer is faster than it, the server counts the time since the last one.
const SIGNS = ["keydown", "pointerdown", "pointermove", "wheel", "scroll", "touchmove", "visibilitychange"];
const EVERY_MS = 10_000;

function countWork(work) {
  if (window.rmkitWork?.id === work.id) return;
  window.rmkitWork?.stop();
  window.rmkitWork = watch(work);
}

function watch({ id, path, idle_s }) {
  let last = performance.now(), active = 0, visible = !document.hidden, sent = -1;

  const count = () => {
    const now = performance.now();
    if (visible) active += Math.min(now - last, 1000 * idle_s);
    last = now;
    visible = !document.hidden;
  };
  const send = () => {
    count();
    const total = Math.round(active);
    if (total === sent) return;
    sent = total;
    navigator.sendBeacon(path, new Blob([JSON.stringify({ active_ms: total })], { type: "application/json" }));
  };
  const sign = (event) => (event.type === "keydown" || event.type === "pointerdown" ? send() : count());
  const timer = setInterval(() => performance.now() - last < 1000 * idle_s && send(), EVERY_MS);
  send();
  for (const name of SIGNS) document.addEventListener(name, sign, { capture: true, passive: true });
  return {
    id,
    stop() {
      clearInterval(timer);
      for (const name of SIGNS) document.removeEventListener(name, sign, { capture: true });
    },
  };
}
