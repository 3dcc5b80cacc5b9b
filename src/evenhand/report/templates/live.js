
// A page that grows: how far the run is comes every few seconds; the figures when there are new ones, with the reader left where they were.
(() => {
  const kept = "evenhand-watch:" + location.pathname;
  // by section and place in it: a section that appears shifts no other
  const parts = () => [...document.querySelectorAll("section[id]")].flatMap((s) => [...s.querySelectorAll("details")].map((d, i) => [s.id + "/" + i, d]));
  const opened = () => Object.fromEntries(parts().map(([name, d]) => [name, d.open]));
  const put = () => { try { sessionStorage.setItem(kept, JSON.stringify({ y: scrollY, open: opened() })); } catch (_) { /* then the page begins at its top */ } };
  try {
    const was = JSON.parse(sessionStorage.getItem(kept));
    sessionStorage.removeItem(kept);
    if (was) {
      for (const [name, d] of parts()) if (name in was.open) d.open = was.open[name];
      scrollTo({ top: was.y, behavior: "instant" });
    }
  } catch (_) { /* nothing was kept */ }
  let seen = null, told = null, since = performance.now(), silent = 0;
  async function look() {
    try {
      const found = await (await fetch("state")).json();
      silent = 0;
      if (seen === null) seen = found.figures;
      const now = document.getElementById("under-way");
      if (now && found.under_way) {
        const fresh = new DOMParser().parseFromString(found.under_way, "text/html").getElementById("under-way");
        if (fresh && found.under_way !== told) {
          const moved = all(".scroll", now).map((table) => table.scrollLeft);
          now.replaceWith(document.adoptNode(fresh));
          all(".scroll", fresh).forEach((table, i) => { table.scrollLeft = moved[i] || 0; });
          sideways(fresh);
          told = found.under_way;
        }
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
