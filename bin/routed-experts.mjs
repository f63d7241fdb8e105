#!/usr/bin/env node
// In a checkout the command line is TypeScript, which Node runs from 22.18 on; the package has the JavaScript made from
// it. The Node that `npm ci` installs is used where the host's is older.
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import * as module from 'node:module';
import { fileURLToPath } from 'node:url';

const OLDEST = [22, 18];
const [major, minor] = process.versions.node.split('.').map(Number);

if (major > OLDEST[0] || (major === OLDEST[0] && minor >= OLDEST[1])) {
  // Node keeps what it compiles in the system's folder for temporary files, or does not where
  // NODE_DISABLE_COMPILE_CACHE is set. Without that each thread strips the types of all that it loads. The folder's
  // name is in the environment because threads read it there.
  const { directory } = module.enableCompileCache();
  if (directory !== undefined) process.env.NODE_COMPILE_CACHE ??= directory;
  const source = new URL('../src/cli/main.ts', import.meta.url);
  await import(existsSync(source) ? source.href : '../dist/cli/main.js');
} else {
  const bundled = fileURLToPath(new URL('../node_modules/node/bin/node', import.meta.url));
  if (!existsSync(bundled)) {
    console.error(
      `routed-experts needs Node ${OLDEST.join('.')} or newer, this is ${process.version}; ` +
        'install a newer one, or in a checkout run "npm ci", which brings one',
    );
    process.exit(2);
  }
  const child = spawn(bundled, [fileURLToPath(import.meta.url), ...process.argv.slice(2)], { stdio: 'inherit' });
  // What ends this process is meant for the child, which may have to drain first. A terminal sends SIGINT to both.
  for (const signal of ['SIGTERM', 'SIGHUP']) process.on(signal, () => child.kill(signal));
  process.on('SIGINT', () => {});
  child.on('exit', (code, signal) => process.exit(code ?? (signal === null ? 1 : 128)));
}
