// From here on the page fills itself.

showTop();
showProgress();
showParallel();
showCurves();
showImportance();
showEffects();
showTimeline();
showTable();
showModel();
showReproduction();
showNav();
keepFresh();

let width = innerWidth;
addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; drawAgain(); } });
addEventListener("beforeprint", () => { for (const entry of charts) if (!entry.chart) draw(entry); });
DARK.addEventListener("change", () => { showRows(table.page); drawAgain(); });
