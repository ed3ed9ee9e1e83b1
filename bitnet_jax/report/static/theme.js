// Sets the theme before the page is drawn. The choice is kept where the browser
// lets a page keep something.
"use strict";

const bitnetTheme = (() => {
  const KEY = "bitnet-report-theme";
  let theme = "";
  try {
    theme = localStorage.getItem(KEY) || "";
  } catch {
    // Pages from disk may have no storage.
  }

  function apply() {
    if (theme === "light" || theme === "dark") {
      document.documentElement.dataset.theme = theme;
    } else {
      delete document.documentElement.dataset.theme;
    }
  }

  function set(value) {
    theme = value;
    apply();
    try {
      localStorage.setItem(KEY, theme);
    } catch {
      // As above.
    }
    document.dispatchEvent(new Event("bitnet-theme"));
  }

  apply();
  return { get: () => theme, set, apply };
})();
