import type { SourceMutation } from './source-mutation.ts';

const reset = { test: 'test/serve/reset-prefix-cache.integration.test.ts' };
const designs = { test: 'test/serve/designs.integration.test.ts' };
const choices = { test: 'test/serve/choices.integration.test.ts' };

export const serveMutations: readonly SourceMutation[] = [
  {
    name: 'choices-half-submitted',
    defect: 'when one of n choices is refused, those added before it stay in the engine',
    file: 'src/serve/engine-host.ts',
    find: 'this.#driver.abort(added);',
    replace: '',
    killedBy: choices,
  },
  {
    name: 'usage-of-the-last-choice',
    defect: 'the usage has the completion tokens of the last choice only',
    file: 'src/serve/answer.ts',
    find: 'const completionTokens = choices.reduce((sum, choice) => sum + choice.tokenIds.length, 0);',
    replace: 'const completionTokens = choices.at(-1)!.tokenIds.length;',
    killedBy: choices,
  },
  {
    name: 'cached-tokens-of-the-last-choice',
    defect: 'the usage calls cached what the first choice of a prompt computed and the last one hit',
    file: 'src/serve/answer.ts',
    find: 'if (!prompts.has(promptTokenIds)) prompts.set(',
    replace: 'prompts.set(',
    killedBy: choices,
  },
  {
    name: 'reset-that-did-nothing-said-200',
    defect: 'POST /reset_prefix_cache says 200 while blocks are held and the cache is as it was',
    file: 'src/serve/cache-route.ts',
    find: 'if (!host.resetPrefixCache(resetRunning)) throw',
    replace: 'if (!host.resetPrefixCache(resetRunning) && false) throw',
    killedBy: reset,
  },
  {
    name: 'reset-spares-running-requests',
    defect: 'POST /reset_prefix_cache?reset_running_requests=true leaves running requests alone',
    file: 'src/serve/cache-route.ts',
    find: 'host.resetPrefixCache(resetRunning)',
    replace: 'host.resetPrefixCache(false)',
    killedBy: reset,
  },
  {
    name: 'reset-always-preempts',
    defect: 'POST /reset_prefix_cache preempts running requests unasked',
    file: 'src/serve/cache-route.ts',
    find: 'host.resetPrefixCache(resetRunning)',
    replace: 'host.resetPrefixCache(true)',
    killedBy: reset,
  },
  {
    name: 'reset-without-the-key',
    defect: 'whoever can connect may reset the prefix cache of a server that asks for a key',
    file: 'src/serve/http-app.ts',
    find: '(v1|inference|reset_prefix_cache)',
    replace: '(v1|inference)',
    killedBy: reset,
  },
  {
    name: 'splice-without-a-warning',
    defect: 'a server that will declare rows missing does not say so when it starts',
    file: 'src/serve/start-warnings.ts',
    find: "kv.rows === 'splice'",
    replace: 'false',
    killedBy: { test: 'test/serve/start-warnings.integration.test.ts' },
  },
  {
    name: 'no-rows-for-who-asks-for-rows',
    defect: 'a server that captures nothing answers requests for rows without rows and without a word',
    file: 'src/serve/sampling-fields.ts',
    find: 'rows.format !== null && !limits.hasRows',
    replace: 'false',
    killedBy: designs,
  },
  {
    name: 'rows-read-from-lost-workers',
    defect: 'after a restart the engine half of shm-flock still reads the shared memory of the workers that were lost',
    file: 'src/host/design-session.ts',
    find: 'const sharedRows = (): SharedRows => lent(() => this.#workers.shared!);',
    replace: 'const { shared } = this.#workers; const sharedRows = (): SharedRows => lent(() => shared!);',
    killedBy: designs,
  },
  {
    name: 'kv-beside-a-design-that-takes-none',
    defect: 'a server starts with KV for others and a design whose rows do not come with it',
    file: 'src/serve/engine-host.ts',
    find: 'if (capture !== null && capture.acceptsExternalKv === undefined) {',
    replace: 'if (false) {',
    killedBy: designs,
  },
];
