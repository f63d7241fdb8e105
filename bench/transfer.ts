/**
 * Between threads: an ArrayBuffer there and back through a piscina task, handed over against cloned. Transfer is flat,
 * a clone is not.
 */

import { Piscina } from 'piscina';
import { Bench } from 'tinybench';

export async function run(): Promise<void> {
  const pool = new Piscina({
    filename: new URL('./echo.worker.ts', import.meta.url).href,
    minThreads: 1,
    maxThreads: 1,
    atomics: 'disabled',
    recordTiming: false,
  });
  const bench = new Bench({ name: 'transfer', time: 300, warmupTime: 100 });
  for (const kib of [4, 256, 4096]) {
    for (const transferred of [true, false]) {
      let buffer = new ArrayBuffer(kib * 1024);
      bench.add(`${kib} KiB ${transferred ? 'transferred' : 'cloned'}, both ways`, async () => {
        const transferList = transferred ? [buffer] : [];
        buffer = (await pool.run({ buffer, transferred }, { transferList })) as ArrayBuffer;
      });
    }
  }
  await bench.run();
  console.table(bench.table());
  await pool.destroy();
}
