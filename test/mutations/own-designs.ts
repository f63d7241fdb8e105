/** Designs of the caller's own: what the check of a module, the guard and the way to a thread must not get wrong. */

import type { SourceMutation } from './source-mutation.ts';

const GUARD = { test: 'test/capture/guard/guard.contract.test.ts' } as const;
const IN_THREADS = { test: 'test/host/own-design.integration.test.ts' } as const;
const ON_THE_COMMAND_LINE = { test: 'test/cli/own-design.integration.test.ts' } as const;
const IN_THE_STORM = { test: 'test/sim/guarded-design.unit.test.ts' } as const;

export const ownDesignMutations: readonly SourceMutation[] = [
  {
    name: 'own-design-unguarded',
    defect: 'a design of the caller’s own serves without a guard',
    file: 'src/worker/design-module.ts',
    find: 'guardedDesign(await importDesign(reference))',
    replace: '(guardedDesign, await importDesign(reference))',
    killedBy: IN_THREADS,
  },
  {
    name: 'failed-request-ends-well',
    defect: 'a request whose hook failed with its last output ends as if nothing had happened',
    file: 'src/engine/engine-core.ts',
    find: 'return failure === undefined ? output : failed(output, failure);',
    replace: 'return output;',
    killedBy: GUARD,
  },
  {
    name: 'failed-request-lives-on',
    defect: 'a request whose hook failed before its end is not ended',
    file: 'src/engine/engine-core.ts',
    find: 'all.push(failed(this.#requests.abort(request), failure));',
    replace: '',
    killedBy: GUARD,
  },
  {
    name: 'switched-off-for-one',
    defect: 'a design that is switched off ends no request that asked for rows',
    file: 'src/capture/guard/guarded-engine-half.ts',
    find: 'for (const asking of this.#asking.values()) this.#fail(asking, this.#failure);',
    replace: '',
    killedBy: GUARD,
  },
  {
    name: 'switched-off-and-asked',
    defect: 'a design that is switched off takes in requests that ask for rows',
    file: 'src/capture/guard/guarded-engine-half.ts',
    find: 'if (asks) throw failure;',
    replace: '',
    killedBy: GUARD,
  },
  {
    name: 'plain-request-fails-with-its-design',
    defect: 'a hook that fails for a request without rows ends nothing',
    file: 'src/capture/guard/guarded-engine-half.ts',
    find: 'if (this.#failure === null) this.#switchOff(failure);',
    replace: '',
    killedBy: GUARD,
  },
  {
    name: 'worker-failure-unheard',
    defect: 'what failed in a worker half does not reach the engine half',
    file: 'src/capture/guard/guarded-worker-half.ts',
    find: 'this.#half === null ? wrapFailure(this.#failure) : deltas',
    replace: 'deltas ?? (wrapFailure, null)',
    killedBy: GUARD,
  },
  {
    name: 'own-rows-unchecked',
    defect: 'what take returns is handed out as it is',
    file: 'src/capture/guard/guarded-engine-half.ts',
    find: 'if (problem !== null) throw new BrokenContract(problem);',
    replace: '',
    killedBy: GUARD,
  },
  {
    name: 'own-chunks-unchecked',
    defect: 'rows of the caller’s own design may lie in no chunk',
    file: 'src/capture/guard/rows-check.ts',
    find: '?? problemOfChunks(rows)',
    replace: '?? (problemOfChunks, null)',
    killedBy: GUARD,
  },
  {
    name: 'own-range-unchecked',
    defect: 'a worker half of the caller’s own reads as many bytes as it likes',
    file: 'src/capture/guard/guarded-worker-half.ts',
    find: 'if (byteLength <= most) return range;',
    replace: 'if (byteLength <= most || most > 0) return range;',
    killedBy: GUARD,
  },
  {
    name: 'lent-bytes-given-away',
    defect: 'a worker half of the caller’s own gives away the bytes that it was lent',
    file: 'src/capture/guard/guarded-worker-half.ts',
    find: 'rows.buffer === bytes?.buffer',
    replace: 'rows.buffer === null',
    killedBy: GUARD,
  },
  {
    name: 'promise-of-a-hook-unnoticed',
    defect: 'a hook of the caller’s own may be asynchronous, and reject when nobody listens',
    file: 'src/capture/guard/hook-call.ts',
    find: 'if (result instanceof Promise) {',
    replace: 'if (result === callHook) {',
    killedBy: GUARD,
  },
  {
    name: 'guard-loses-the-index',
    defect: 'the guard hands the engine half the index of its rows with the word in front',
    file: 'src/capture/guard/payload.ts',
    find: 'deltas.index.subarray(1, deltas.indexLength)',
    replace: 'deltas.index.subarray(0, deltas.indexLength)',
    killedBy: IN_THE_STORM,
  },
  {
    name: 'built-in-name-taken',
    defect: 'a module may call its design deltas',
    file: 'src/capture/guard/checked-design.ts',
    find: '(designNames as readonly string[]).includes(name)',
    replace: '(designNames as readonly string[]).length === 0',
    killedBy: IN_THREADS,
  },
  {
    name: 'half-without-hooks',
    defect: 'a half of the caller’s own may lack hooks that it must have',
    file: 'src/capture/guard/checked-design.ts',
    find: 'if (missing.length > 0) throw new BrokenContract(',
    replace: 'if (missing.length > 99) throw new BrokenContract(',
    killedBy: IN_THREADS,
  },
  {
    name: 'own-design-in-one-thread',
    defect: 'the threads of fuzz do not import the module of the caller’s own',
    file: 'src/cli/fuzz/seeds.worker.ts',
    find: 'await loadDesigns([design]);',
    replace: '',
    killedBy: ON_THE_COMMAND_LINE,
  },
];
