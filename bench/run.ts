/**
 * `npm run bench [name …]`: the micro-benchmarks, all of them or those named. Figures are for this machine and device
 * only.
 */

import { cpus } from 'node:os';

const benches: Readonly<Record<string, () => Promise<{ run: () => Promise<void> }>>> = {
  scheduler: () => import('./scheduler.ts'),
  capture: () => import('./capture.ts'),
  burst: () => import('./burst.ts'),
  kernels: () => import('./kernels.ts'),
  routers: () => import('./routers.ts'),
  transfer: () => import('./transfer.ts'),
  serving: () => import('./serving.ts'),
  volume: () => import('./volume.ts'),
  inspect: () => import('./inspect.ts'),
  'packed-rows': () => import('./packed-rows.ts'),
  frontend: () => import('./frontend.ts'),
};

if (process.argv.includes('--help')) {
  console.log(
    `npm run bench [-- name …]: the micro-benchmarks ${Object.keys(benches).join(', ')}; all of them without a name`,
  );
  process.exit(0);
}
const wanted = process.argv.slice(2).filter((argument) => !/^\d+$/.test(argument));
const unknown = wanted.filter((name) => !Object.hasOwn(benches, name));
if (unknown.length > 0) {
  console.error(`unknown bench "${unknown.join('", "')}"; choose from: ${Object.keys(benches).join(', ')}`);
  process.exit(2);
}

console.log(`${cpus()[0]?.model.trim() ?? 'unknown processor'} × ${cpus().length} · Node ${process.version}`);
for (const name of wanted.length > 0 ? wanted : Object.keys(benches)) {
  console.log(`\n${name}`);
  await (await benches[name]!()).run();
}
