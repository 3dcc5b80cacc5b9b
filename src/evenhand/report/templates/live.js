
// A page that grows: how far the run is comes every few seconds; the figures when there are new ones, with the reader left where they were.
(() => {
  const kept = "evenhand-watch:" + location.pathname;
  const opened = () => [...document.querySelectorAll("details")].map((d) => d.open);
  const put = () => { try { sessionStorage.setItem(kept, JSON.stringify({ y: scrollY, open: opened() })); } catch (_) { /* then the page begins at its top */ } };
  try {
    const was = JSON.parse(sessionStorage.getItem(kept));
    sessionStorage.removeItem(kept);
    if (was) {
      [...document.querySelectorAll("details")].forEach((d, i) => { d.open = !!was.open[i]; });
      scrollTo({ top: was.y, behavior: "instant" });
    }
  } catch (_) { /* nothing was kept */ }
  let seen = null, since = performance.now(), silent = 0;
  async function look() {
    try {
      const found = await (await fetch("state")).json();
      silent = 0;
      if (seen === null) seen = found.figures;
      const now = document.getElementById("under-way");
      if (now && found.under_way) {
        const fresh = new DOMParser().parseFromString(found.under_way, "text/html").getElementById("under-way");
        if (fresh && fresh.innerHTML !== now.innerHTML) now.replaceWith(document.adoptNode(fresh));
        document.querySelector(".hero h1").textContent = found.title;
        document.querySelector(".hero h1 + p").textContent = found.foot;
        document.title = found.title + " \u00b7 " + found.foot;
      }
      const typing = document.activeElement && ["INPUT", "SELECT"].includes(document.activeElement.tagName);
      if ((found.done && now) || (found.figures !== seen && performance.now() - since > 15000 && !typing)) { put(); location.reload(); return; }
    } catch (_) {
      if (++silent === 3 && document.querySelector(".hero p")) document.querySelector(".hero p").textContent = "The server no longer answers: start `evenhand watch` again.";
    }
    setTimeout(look, 3000);
  }
  setTimeout(look, 1000);
})();
