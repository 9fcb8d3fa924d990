// Worker for pages opened as files: browsers start none there, so its script runs in a hidden frame.
// The search needs one. The plugin `offline` of the theme looks for this file's name.

class FrameWorker extends EventTarget {
  constructor(url) {
    super();
    const frame = document.createElement("iframe");
    frame.hidden = true;
    document.body.append(frame);
    const inside = frame.contentWindow;
    inside.postMessage = (data) => {
      const message = new MessageEvent("message", { data });
      this.dispatchEvent(message);
      this.onmessage?.(message);
    };
    inside.importScripts = (...urls) =>
      urls.reduce((before, one) => before.then(() => load(inside, one)), Promise.resolve());
    this.frame = frame;
    this.loaded = load(inside, url);
  }

  async postMessage(data) {
    await this.loaded;
    const inside = this.frame.contentWindow;
    inside.dispatchEvent(new inside.MessageEvent("message", { data: structuredClone(data) }));
  }

  terminate() {
    this.frame.remove();
  }
}

function load(inside, url) {
  return new Promise((resolve, reject) => {
    const script = inside.document.createElement("script");
    Object.assign(script, { src: url, onload: resolve, onerror: reject });
    inside.document.body.append(script);
  });
}

if (location.protocol === "file:") window.Worker = FrameWorker;
