// Runs a nats-server and two workers that share its events: `pm2 start ecosystem.config.cjs`.
//
// Copy it beside your app and change what stands on top. docs/deploy.md says why each line is here.

const path = require("node:path");

const env = process.env;
const root = env.APP_DIR || path.resolve(__dirname, "../.."); // where `app` can be imported
const app = env.APP || "examples.router:app";
const bin = env.APP_BIN || path.join(root, ".venv", "bin"); // where pip put the commands
const port = env.NATS_PORT || "4222";
const store = env.NATS_STORE || path.join(root, ".omni-worker", "nats");
const grace = Number(env.OMNI_WORKER_GRACE || 30); // seconds a running handler may take to finish

module.exports = {
  apps: [
    {
      name: "nats",
      script: path.join(bin, "nats-server"),
      interpreter: "none",
      args: ["--addr", "127.0.0.1", "--port", port, "--jetstream", "--store_dir", store],
      kill_timeout: 10_000, // it writes its files out
    },
    {
      name: "worker",
      cwd: root,
      script: path.join(bin, "omni-worker"),
      interpreter: "none",
      args: ["run", app],
      exec_mode: "fork", // the only one PM2 has for Python
      instances: Number(env.APP_INSTANCES || 2), // with two, one works while the other restarts

      wait_ready: true, // the worker says "ready" once every consumer is bound
      listen_timeout: 20_000, // and has so long to do it: it waits for nats as well
      kill_timeout: (grace + 5) * 1000, // PM2's own 1.6 s would cut handlers off

      stop_exit_codes: [2], // called wrongly: starting it again would not help
      exp_backoff_restart_delay: 200, // milliseconds, growing to 15 s

      env: {
        NATS_URL: `nats://127.0.0.1:${port}`,
        OMNI_WORKER_GRACE: String(grace),
        PYTHONUNBUFFERED: "1",
      },
    },
  ],
};
