/* Draws the widgets saved in a page without a kernel and without another host.

   The widgets come from the bundle that ipywidgets installs for classic notebooks (copied beside this file when the
   site is built). It expects such a notebook around it; the few things it asks of one are stood in for here. Then it is
   given the page's saved state, and each place of a widget its view. */
(() => {
  "use strict";
  const STATE = "application/vnd.jupyter.widget-state+json";
  const VIEW = "application/vnd.jupyter.widget-view+json";
  const bundle = new URL("widgets/extension.js", document.currentScript.src);

  const nothing = () => {};
  const element = document.createElement("div");
  const kernel = { comm_manager: { register_target: nothing } };
  const notebook = {
    kernel, metadata: {}, events: { on: nothing }, container: { on: nothing }, get_cells: () => [],
    keyboard_manager: { actions: { register: nothing }, register_events: nothing },
  };

  function standIns() {
    class OutputArea {}
    OutputArea.prototype.register_mime_type = nothing;
    window.Jupyter = {
      version: "6.5.0", notebook, notification_area: { widget: () => element },
      menubar: { actions: { register: nothing, get: nothing } },
    };
    const modules = {
      "base/js/namespace": window.Jupyter, "base/js/events": notebook.events, "notebook/js/outputarea": { OutputArea },
    };
    window.requirejs = (names, use) => use?.(...names.map((name) => modules[name]));
    window.requirejs.config = nothing;
  }

  function load() {
    return new Promise((resolve, reject) => {
      window.define = (_, make) => resolve(make({ id: "widgets", uri: bundle.href }));
      const script = document.createElement("script");
      script.src = bundle.href;
      script.onerror = () => reject(new Error(`${bundle.href} is not there`));
      document.head.append(script);
    });
  }

  async function managerOf(exports) {
    // The bundle adds itself to the notebook's menu, so there is one for a moment.
    const menu = document.createElement("div");
    menu.hidden = true;
    menu.innerHTML = "<ul><li><a id='help_menu'></a></li></ul>";
    document.body.append(menu);
    await exports.load_ipython_extension();
    menu.remove();
    const manager = kernel.widget_manager;
    manager._get_comm_info = async () => ({}); // no kernel, so nothing is live
    return manager;
  }

  /* What a screen reader says of a slider: its label, and the value as shown. */
  function name(handle) {
    const slider = handle.closest(".widget-inline-hbox, .jupyter-widget-inline-hbox");
    const say = (what, text) => text !== undefined && handle.getAttribute(what) !== text && handle.setAttribute(what, text);
    const tell = () => {
      say("aria-label", slider.querySelector(".widget-label")?.textContent);
      say("aria-valuetext", slider.querySelector(".widget-readout")?.textContent);
    };
    tell();
    new MutationObserver(tell).observe(slider, { subtree: true, childList: true, attributes: true, characterData: true });
  }

  function nameAll(home) {
    const named = new Set();
    const look = () => home.querySelectorAll(".noUi-handle").forEach((handle) => named.has(handle) || (named.add(handle), name(handle)));
    look();
    new MutationObserver(look).observe(home, { subtree: true, childList: true }); // views come one after another
  }

  /* The bundle asks MathJax 2 to typeset labels; ours hold no formulas, and the page has MathJax 3. */
  function typesetNothing() {
    if (window.MathJax && !window.MathJax.Hub) window.MathJax.Hub = { Queue: nothing };
  }

  async function draw() {
    const state = document.querySelector(`script[type="${STATE}"]`);
    const places = [...document.querySelectorAll(`script[type="${VIEW}"]`)];
    if (!state || !places.length) return;
    try {
      standIns();
      typesetNothing();
      window.addEventListener("load", typesetNothing); // MathJax may replace what was there
      const manager = await managerOf(await load());
      await manager.set_state(JSON.parse(state.textContent));
      for (const place of places) {
        typesetNothing();
        const model = await manager.get_model(JSON.parse(place.textContent).model_id);
        const view = await manager.create_view(model);
        const home = document.createElement("div");
        home.className = "jupyter-widgets-view";
        place.before(home);
        view.luminoWidget.constructor.attach(view.luminoWidget, home);
        nameAll(home);
      }
    } catch (error) {
      for (const place of places) place.insertAdjacentHTML("beforebegin", "<p>This explorer could not be drawn.</p>");
      throw error; // the console says why
    }
  }

  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", draw);
  else draw();
})();
