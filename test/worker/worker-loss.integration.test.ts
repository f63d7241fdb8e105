// Whatever becomes of a worker thread is one event for its executor (L8): everything in flight rejects, the driver
// hears of it while idle, new workers take over, and no process ends.

import { Piscina } from 'piscina';
import { describe, expect, test, vi } from 'vitest';
import type { Server } from '../../src/serve/server.ts';
import { closeAfterTest, expectNothingLeft, startServer } from '../serve/helpers.ts';
import { promptOf } from '../serve/pd-helpers.ts';
import { ask, expectRight, inject } from './losses.ts';

const CAP_MS = 60_000;

async function restarted(server: Server, numRestarts: number): Promise<void> {
  await expect.poll(() => server.host.engine.workers.numRestarts, { interval: 2, timeout: CAP_MS }).toBe(numRestarts);
}

describe.each([
  ['cpu', 2],
  ['webgpu', 1],
] as const)('on %s, %d ranks', (device, numRanks) => {
  test('a worker that is lost while idle, of any rank, in any way, is replaced before the next request', async () => {
    const server = closeAfterTest(await startServer({ host: { device, numRanks, maxRestarts: 100 } }));
    let numRestarts = 0;
    for (const kind of ['exit-thread', 'throw', 'reject', 'lose-device'] as const) {
      const rank = numRestarts % numRanks;
      await inject(server, { kind, rank, afterMs: 0 });
      await restarted(server, ++numRestarts);
      const { lastLoss } = server.host.engine.workers;
      expect(lastLoss).toContain(kind === 'lose-device' ? 'the device is gone' : `worker of rank ${rank} was lost`);
      // The thread itself tells what happened to it: it has not ended, and closes its device before it does.
      if (kind === 'throw' || kind === 'reject') expect(lastLoss).toContain('fault-injector');
      const prompt = promptOf(numRestarts, 20);
      expectRight(prompt, await ask(server, prompt));
    }
    const health = await fetch(`${server.url}/health`);
    expect([health.status, await health.json()]).toMatchObject([200, { status: 'ok', worker_restarts: numRestarts }]);
    await expectNothingLeft(server);
  });
});

test('an idle worker that is lost for good: the server says so', async () => {
  const server = closeAfterTest(await startServer());
  await inject(server, { kind: 'throw', afterMs: 0 });
  await expect
    .poll(() => server.host.engine.deathReason, { interval: 2, timeout: CAP_MS })
    .toContain('an injected exception');
  const health = await fetch(`${server.url}/health`);
  expect([health.status, await health.json()]).toMatchObject([503, { status: 'stopped' }]);
});

test('workers lost while the server closes are not started again, and it closes', async () => {
  const server = await startServer({ host: { maxRestarts: 5 } });
  const closed = server.close(0);
  await inject(server, { kind: 'exit-thread', afterMs: 0 });
  await closed;
  expect(server.host.engine.workers.numRestarts).toBe(0);
});

test('an error of the thread pool is a loss: a reply without a thread, which piscina reports so', async () => {
  const pools: Set<Piscina> = new Set();
  const listening = vi.spyOn(Piscina.prototype, 'on').mockImplementation(function (this: Piscina, event, listener) {
    pools.add(this);
    return this.addListener(event, listener);
  });
  try {
    const server = closeAfterTest(await startServer({ host: { maxRestarts: 100 } }));
    const [pool] = pools;
    expect(pool!.emit('error', new Error('Unexpected message from Worker'))).toBe(true);
    await restarted(server, 1);
    expect(server.host.engine.workers.lastLoss).toContain('Unexpected message from Worker');
  } finally {
    listening.mockRestore();
  }
});
