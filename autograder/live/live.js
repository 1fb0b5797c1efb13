// Replace the page's changing part when the server reports a change. The server escapes everything that students wrote.
"use strict";
const main = document.querySelector("main[data-part]");
let isLoading = false, isStale = false;

async function refresh() {
  if (isLoading) { isStale = true; return; }
  isLoading = true;
  try {
    const answer = await fetch(main.dataset.part);
    if (answer.ok) {
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const focused = document.activeElement?.id, left = main.querySelector(".wide")?.scrollLeft;
      main.replaceChildren(...page.body.childNodes);
      if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
      if (left) main.querySelector(".wide").scrollLeft = left;
    }
  } finally {
    isLoading = false;
    if (isStale) { isStale = false; refresh(); }
  }
}

if (main) {
  const events = new EventSource(main.dataset.events);
  const status = document.getElementById("status");
  events.onmessage = () => { status.hidden = true; refresh(); };
  events.onerror = () => { status.hidden = false; };
}
