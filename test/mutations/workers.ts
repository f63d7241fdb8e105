import type { SourceMutation } from './source-mutation.ts';

const loss = { test: 'test/worker/worker-loss.integration.test.ts' };
const ranks = { test: 'test/worker/ranks.integration.test.ts' };
const kvLoss = { test: 'test/serve/kv-worker-loss.integration.test.ts' };

export const workersMutations: readonly SourceMutation[] = [
  {
    name: 'pool-errors-unheard',
    defect:
      'nothing listens to the errors of a thread pool: a reply in flight when a thread ends takes the process along',
    file: 'src/worker/thread/rank-thread.ts',
    find: "this.#pool.on('error', (error: Error) => this.#lose(error.message));",
    replace: '',
    killedBy: loss,
  },
  {
    name: 'executor-keeps-engines',
    defect: 'an executor keeps every engine that it has served, with its rows, for as long as it may be lost',
    file: 'src/worker/engine-driver.ts',
    find: 'this.#watcher.driver = null;',
    replace: '',
    killedBy: { test: 'test/worker/engine-driver-let-go.unit.test.ts' },
  },
  {
    name: 'idle-exit-unheard',
    defect: 'a thread that ends while nothing is in flight is not noticed',
    file: 'src/worker/thread/rank-thread.ts',
    find: 'this.#lose(`its thread ended with exit code ${code}`);',
    replace: 'void code;',
    killedBy: loss,
  },
  {
    name: 'worker-exceptions-uncaught',
    defect: 'an exception outside any task ends the worker thread, with whatever map is pending',
    file: 'src/worker/thread/rank.worker.ts',
    find: "process.on('uncaughtException', (error) => {",
    replace: "process.on('exit', (error) => {",
    killedBy: loss,
  },
  {
    name: 'idle-device-loss-untold',
    defect: 'a device that is lost while idle is not told: loads wait for a restart that does not come',
    file: 'src/worker/thread/rank.worker.ts',
    find: 'if (this.faults.isEnding) return;',
    replace: 'if (reason) return;',
    killedBy: loss,
  },
  {
    name: 'driver-deaf-while-idle',
    defect: 'the driver hears of a loss only from a step',
    file: 'src/worker/engine-driver.ts',
    find: 'if (executor !== this.#executor) return;',
    replace: 'if (executor === this.#executor) return;',
    killedBy: loss,
  },
  {
    name: 'other-ranks-awaited-after-a-loss',
    defect: 'when one rank is lost, what is in flight on the others is still awaited',
    file: 'src/worker/thread/thread-executor.ts',
    find: 'else thread.fail(loss);',
    replace: '',
    killedBy: { test: 'test/worker/stuck-ranks.integration.test.ts' },
  },
  {
    name: 'watchdog-not-armed',
    defect: 'a worker that is stuck hangs every request for ever',
    file: 'src/worker/thread/rank-thread.ts',
    find: 'if (this.#asks.has(oldest)) this.#loseStuck(this.#options.stepTimeoutMs);',
    replace: '',
    killedBy: { test: 'test/worker/stuck-ranks.integration.test.ts' },
  },
  {
    name: 'stuck-thread-terminated',
    defect: 'a thread that is stuck is terminated instead of abandoned: a pending map takes the process along',
    file: 'src/worker/thread/rank-thread.ts',
    find: 'abandon(this, ended);',
    replace: 'await this.#pool.destroy();',
    killedBy: { test: 'test/worker/stuck-ranks.integration.test.ts' },
  },
  {
    name: 'own-loss-fails-the-load',
    defect: 'a load that fails because the own workers are lost ends its request, although they are started again',
    file: 'src/serve/kv/kv-exchange.ts',
    find: 'if (!isLoss(error)) this',
    replace: 'this',
    killedBy: kvLoss,
  },
  {
    name: 'load-of-lost-workers-finished',
    defect: 'a load that began before a restart is finished after it',
    file: 'src/serve/kv/kv-exchange.ts',
    find: 'this.#loader.onWorkersLost();',
    replace: '',
    killedBy: kvLoss,
  },
  {
    name: 'lost-handover-not-repeated',
    defect: 'the proxy passes on that KV did not come, although both legs can be sent again',
    file: 'src/serve/proxy/pd-route.ts',
    find: 'handovers < MAX_HANDOVERS && !isLate',
    replace: 'false',
    killedBy: { test: 'test/serve/proxy-failures.integration.test.ts' },
  },
  {
    name: 'ranks-not-compared',
    defect: 'a rank other than 0 samples garbage, and nobody notices',
    file: 'src/worker/thread/thread-executor.ts',
    find: 'requireAgreement(outputs);',
    replace: '',
    killedBy: ranks,
  },
  {
    name: 'kv-to-rank-0-only',
    defect: 'KV from elsewhere is written to rank 0 only',
    file: 'src/worker/thread/thread-executor.ts',
    find: `await all(
      this.#ranks.map((rank, i) =>`,
    replace: `await all(
      this.#ranks.slice(0, 1).map((rank, i) =>`,
    killedBy: ranks,
  },
  {
    name: 'rank-1-buffers-not-recycled',
    defect: 'the buffers of ranks other than 0 never come back to them',
    file: 'src/worker/thread/thread-executor.ts',
    find: 'for (const output of outputs.slice(1)) this.recycle(output);',
    replace: '',
    killedBy: ranks,
  },
];
