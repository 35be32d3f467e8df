// A player's frame gets the height of what it holds, which depends on its width.
window.addEventListener("load", () => {
  for (const frame of document.querySelectorAll("iframe[srcdoc]")) {
    const page = frame.contentDocument.documentElement;
    new ResizeObserver(() => { frame.style.height = `${page.offsetHeight + 2}px`; }).observe(page);
  }
});
