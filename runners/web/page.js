"use strict";
// The theme's button, and the charts' library out of the page itself.

const recipePage = (() => {
  const KEY = "recipe-theme";
  const root = document.documentElement;
  const listeners = [];

  function kept() {
    try { return localStorage.getItem(KEY); } catch { return null; }
  }

  function keep(theme) {
    try { localStorage.setItem(KEY, theme); } catch { /* a page from disk may have no storage */ }
  }

  const wished = kept();
  if (wished === "light" || wished === "dark") root.dataset.theme = wished;

  function isDark() {
    if (root.dataset.theme) return root.dataset.theme === "dark";
    return matchMedia("(prefers-color-scheme: dark)").matches;
  }

  function changed() {
    for (const button of document.querySelectorAll("button[data-toggle-theme]")) {
      button.textContent = isDark() ? "Light" : "Dark";
      button.setAttribute("aria-label", isDark() ? "Switch to light colours" : "Switch to dark colours");
    }
    for (const listener of listeners) listener();
  }

  /** The value of a CSS variable, such as "--c1". */
  function colour(name) {
    return getComputedStyle(root).getPropertyValue(name).trim();
  }

  /** Call back whenever the colours have changed. */
  function onColours(listener) {
    listeners.push(listener);
  }

  /** Plotly, from <script type="application/gzip" id="plotly"> with base64 in it; runs because the CSP has its hash. */
  async function loadPlotly() {
    const packed = atob(document.getElementById("plotly").textContent.trim());
    const bytes = new Uint8Array(packed.length);
    for (let i = 0; i < packed.length; i++) bytes[i] = packed.charCodeAt(i);
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = await new Response(stream).text();
    document.head.append(script);
    return window.Plotly;
  }

  document.addEventListener("DOMContentLoaded", () => {
    for (const button of document.querySelectorAll("button[data-toggle-theme]")) {
      button.hidden = false;
      button.addEventListener("click", () => {
        root.dataset.theme = isDark() ? "light" : "dark";
        keep(root.dataset.theme);
        changed();
      });
    }
    changed();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", changed);
  matchMedia("print").addEventListener("change", changed);

  return { colour, isDark, onColours, loadPlotly };
})();
