// Runs a worker beside Omni under PM2: `pm2 start beside-omni.config.cjs`. No nats-server of its
// own: Omni's is used.
//
// Copy it into the folder of your app as ecosystem.config.cjs. docs/omni.md says more.

const fs = require("node:fs");
const path = require("node:path");

const env = process.env;
const root = env.APP_DIR || __dirname; // where `app` can be imported
const app = env.APP || "app:app";

// The virtual environment: the active one, else .venv beside the app, else venv.
const places = [env.VIRTUAL_ENV, path.join(root, ".venv"), path.join(root, "venv")];
const commands = places.filter(Boolean).map((one) => path.join(one, "bin", "omni-worker"));
const command = commands.find((one) => fs.existsSync(one));
if (!command) {
  throw new Error(`omni-worker is in none of ${commands.join(", ")}: create .venv and install it`);
}
const grace = Number(env.OMNI_WORKER_GRACE || 30); // seconds a running handler may take to finish

module.exports = {
  apps: [
    {
      name: env.APP_NAME || "omni-worker",
      cwd: root,
      script: command,
      interpreter: "none",
      args: ["run", app],
      exec_mode: "fork", // the only one PM2 has for Python
      instances: Number(env.APP_INSTANCES || 1),

      wait_ready: true, // the worker says "ready" once every consumer is bound
      listen_timeout: 60_000, // it waits for Omni's nats-server as well
      kill_timeout: (grace + 5) * 1000, // PM2's own 1.6 s would cut handlers off

      stop_exit_codes: [2], // called wrongly: starting it again would not help
      exp_backoff_restart_delay: 200, // milliseconds, growing to 15 s

      env: {
        NATS_URL: env.NATS_URL || "nats://localhost:4222", // Omni's, as it listens by default
        OMNI_URL: env.OMNI_URL || `http://localhost:${env.API_PORT || 8882}`,
        OMNI_WORKER_GRACE: String(grace),
        OMNI_WORKER_RECONNECT_MAX_RETRIES: "none", // Omni may be restarted, or start later
        PYTHONUNBUFFERED: "1",
        // OMNI_API_KEY comes from the shell that starts it: no key in a file that is committed.
      },
    },
  ],
};
