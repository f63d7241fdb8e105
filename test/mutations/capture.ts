/** Capture: what a half, a ring, a lock or a check must not get wrong. */

import type { SourceMutation } from './source-mutation.ts';

const HEAP = { test: 'test/capture/live-heap.contract.test.ts' } as const;
const BLOCK_STORE = { test: 'test/capture/block-store.unit.test.ts' } as const;
const MONOLITHIC = { test: 'test/capture/router-kinds.contract.test.ts' } as const;
const ON_DEVICES = { test: 'test/kernels/device.contract.test.ts' } as const;
const SHARED_ROWS = { test: 'test/capture/posix-shared-rows.integration.test.ts' } as const;
const RANKS = { test: 'test/capture/shm-flock-ranks.unit.test.ts' } as const;
const TWO_RANKS = { command: ['fuzz', '--seeds', '300'] } as const;

/** An entry of the half's map goes to a list first, which nothing counts. */
const keeping = (map: string): string =>
  `this.#kept.push(this.${map}.get(request.index)); this.${map}.delete(request.index);\n  }\n` +
  '  readonly #kept: unknown[] = [];\n  nothing(): void {';

export const captureMutations: readonly SourceMutation[] = [
  {
    name: 'deltas-keeps-ended-requests',
    defect: 'the engine half of deltas keeps each ended request in a list that it does not count',
    file: 'src/capture/deltas/prefix-rows/engine-half.ts',
    find: 'this.#accumulators.delete(request.index);',
    replace: keeping('#accumulators'),
    killedBy: HEAP,
  },
  {
    name: 'host-cache-keeps-ended-requests',
    defect:
      'the engine half of the RFC, which is that of host-cache, keeps ended requests in a list that it does not count',
    file: 'src/capture/deltas/engine-half.ts',
    find: 'this.#requests.delete(request.index);',
    replace: keeping('#requests'),
    killedBy: HEAP,
  },
  {
    name: 'block-store-keeps-ended-requests',
    defect: 'the engine half of block-store keeps each ended request in a list that it does not count',
    file: 'src/capture/block-store/engine-half.ts',
    find: 'this.#held.delete(request.index);',
    replace: keeping('#held'),
    killedBy: HEAP,
  },
  {
    name: 'snapshots-pile-up',
    defect: 'slot-store keeps the block tables of steps whose output was thrown away',
    file: 'src/capture/slot-store/engine-half.ts',
    find: 'emission.snapshots = emission.snapshots.filter(({ stepId }) => stepId > this.#stepId);',
    replace: '',
    killedBy: { test: 'test/capture/slot-store.unit.test.ts' },
  },
  {
    name: 'arena-too-small',
    defect: 'block-store keeps rows for one KV pool and not for two',
    file: 'src/capture/block-store/worker-half.ts',
    find: '2 * engine.numBlocks',
    replace: 'engine.numBlocks',
    killedBy: BLOCK_STORE,
  },
  {
    name: 'arena-without-bound',
    defect: 'block-store keeps rows for more than two KV pools',
    file: 'src/capture/block-store/worker-half.ts',
    find: '2 * engine.numBlocks',
    replace: '20 * engine.numBlocks',
    killedBy: BLOCK_STORE,
  },
  {
    name: 'released-head-first',
    defect: 'block-store lets go of the beginning of a prefix before its end',
    file: 'src/capture/block-store/captured-request.ts',
    find: 'for (let ordinal = this.#blocks.length - 1; ordinal >= 0; ordinal--) {',
    replace: 'for (let ordinal = 0; ordinal < this.#blocks.length; ordinal++) {',
    killedBy: BLOCK_STORE,
  },
  {
    name: 'dropped-output-counts',
    defect: 'an output that a cache reset threw away counts as one that has come (hasOutput)',
    file: 'src/capture/deltas/prefix-rows/engine-half.ts',
    find: 'if (live(requestIndex) !== null) table.hasOutput = true;',
    replace: 'table.hasOutput = true;\n        if (live(requestIndex) !== null) continueRow: {}',
    killedBy: { test: 'test/capture/prefix-rows-half.unit.test.ts' },
  },
  {
    name: 'rfc-keeps-dropped-output',
    defect: 'the half of the RFC appends rows of an output that a cache reset threw away, or of a request that is over',
    file: 'src/capture/deltas/engine-half.ts',
    find: 'if (live(span.requestIndex) === null) continue;',
    replace: 'if (live === null) continue;',
    killedBy: { test: 'test/capture/deltas-half.unit.test.ts' },
  },
  {
    name: 'rfc-keeps-the-first-pass',
    defect: 'a row that is computed again does not overlay the earlier one',
    file: 'src/capture/row-pages.ts',
    find: 'this.#page(pageIndex).set(ofPage,',
    replace: 'if (this.#present.gaps(at, to).length > 0) this.#page(pageIndex).set(ofPage,',
    killedBy: { test: 'test/capture/deltas-half.unit.test.ts' },
  },
  {
    name: 'rows-behind-a-reset',
    defect: 'rows of an output that a cache reset threw away go to the table that the request has since',
    file: 'src/capture/deltas/prefix-rows/row-accumulator.ts',
    find: 'if (stepId >= this.#table.firstStepId) {',
    replace: 'if (stepId >= 0) {',
    killedBy: { test: 'test/capture/prefix-rows-half.unit.test.ts' },
  },
  {
    name: 'rows-of-a-table-between',
    defect: 'rows that a step computes for a table between the first and the last are lost',
    file: 'src/capture/deltas/prefix-rows/row-accumulator.ts',
    find: 'before.findLastIndex(({ firstStepId }) => firstStepId <= stepId)',
    replace: '0',
    killedBy: { test: 'test/capture/prefix-rows-half.unit.test.ts' },
  },
  {
    name: 'tables-kept-while-a-step-is-in-flight',
    defect: 'a cache reset in every step: rows of all outputs that it threw away are held (storm 3013056, L7)',
    file: 'src/capture/deltas/prefix-rows/row-accumulator.ts',
    find:
      'before.splice(\n      0,\n      before.findLastIndex(({ firstStepId }) => firstStepId <= stepId),\n    );\n' +
      '    return before[0]!;',
    replace: 'return before.findLast(({ firstStepId }) => firstStepId <= stepId)!;',
    killedBy: { test: 'test/capture/prefix-rows-half.unit.test.ts' },
  },
  {
    name: 'ended-with-steps-in-flight',
    defect: 'rows that come after a request has ended are lost to the requests that hit its blocks',
    file: 'src/capture/deltas/prefix-rows/engine-half.ts',
    find: 'this.#ended.set(request.index, { accumulator, lastStepId });',
    replace: '',
    killedBy: { test: 'test/capture/prefix-rows-half.unit.test.ts' },
  },
  {
    name: 'ended-kept-for-good',
    defect: 'what a request left behind is kept after the last step that may compute rows for it',
    file: 'src/capture/deltas/prefix-rows/engine-half.ts',
    find: 'this.#ended.delete(requestIndex);',
    replace: '',
    killedBy: { test: 'test/capture/prefix-rows-half.unit.test.ts' },
  },
  {
    name: 'room-behind-a-gap',
    defect: 'behind rows that did not come, a block goes on in the run of a block before them',
    file: 'src/capture/deltas/prefix-rows/table-rows.ts',
    find: 'if (this.runs.length > first) this.runs.length = first;',
    replace: '',
    killedBy: { test: 'test/capture/external-kv-rows.unit.test.ts' },
  },
  {
    name: 'room-without-bound',
    defect: 'the run of a short request has room for more blocks than the request has',
    file: 'src/capture/deltas/prefix-rows/table-rows.ts',
    find: 'Math.min(start, BLOCKS_AHEAD)',
    replace: 'BLOCKS_AHEAD * 4',
    killedBy: { test: 'test/capture/prefix-rows-half.unit.test.ts' },
  },
  {
    name: 'views-of-earlier-memory',
    defect: 'a payload that needs more memory is read through views of the memory before',
    file: 'src/capture/payload-rows.ts',
    find: 'this.#views.length = 0;',
    replace: '',
    killedBy: { test: 'test/capture/payload-rows.unit.test.ts' },
  },
  {
    name: 'spans-of-two-requests-joined',
    defect: 'rows of a request that begin where those of the one before it ended are taken for its rows',
    file: 'src/capture/spans.ts',
    find: ' && index[last] === requestIndex',
    replace: '',
    killedBy: { test: 'test/capture/spans.unit.test.ts' },
  },
  {
    name: 'rank-one-not-recycled',
    defect: 'memory of rows goes back to rank 0 alone',
    file: 'src/sim/storm.ts',
    find: 'if (rows !== undefined) ranks[i]!.recycle(rows);',
    replace: 'if (rows !== undefined && i === 0) ranks[i]!.recycle(rows);',
    killedBy: TWO_RANKS,
  },
  {
    name: 'replayed-ids-narrowed',
    defect: 'ids of routing_replay_out are read as bytes',
    file: 'src/kernels/model/routing-replay/routing-replay.ts',
    find: '(16 * (place & 1))) & 0xffff;',
    replace: '(16 * (place & 1))) & 0xff;',
    killedBy: MONOLITHIC,
  },
  {
    name: 'replayed-ids-written-narrow',
    defect: 'a monolithic router writes its ids as bytes',
    file: 'src/kernels/model/routing-replay/routing-replay.ts',
    find: '(expert << shift);',
    replace: '((expert & 0xff) << shift);',
    killedBy: MONOLITHIC,
  },
  {
    name: 'wgsl-pack-narrows-ids',
    defect: 'the pack kernel of a monolithic router reads ids as bytes',
    file: 'src/kernels/model/routing-replay/pack-routing-replay.wgsl',
    find: '& 0xffffu',
    replace: '& 0xffu',
    killedBy: ON_DEVICES,
  },
  {
    name: 'wgsl-expand-narrows-ids',
    defect: 'the kernel that expands routing_replay_out reads ids as bytes',
    file: 'src/kernels/model/routing-replay/expand-routing-replay.wgsl',
    find: '& 0xffffu',
    replace: '& 0xffu',
    killedBy: ON_DEVICES,
  },
  {
    name: 'wgsl-writes-narrow-ids',
    defect: 'the monolithic kernel writes ids as bytes',
    file: 'src/kernels/model/route/routing-replay-out.wgsl',
    find: 'before | (expert << 16u)',
    replace: 'before | ((expert & 0xffu) << 16u)',
    killedBy: ON_DEVICES,
  },
  {
    name: 'lock-without-flock',
    defect: 'the lock of shm-flock opens its file and locks nothing',
    file: 'src/capture/shm-flock/posix-shared-rows.ts',
    find: 'this.#flock(LOCK_EX);',
    replace: '',
    killedBy: SHARED_ROWS,
  },
  {
    name: 'lock-file-kept-open',
    defect: 'the lock file of shm-flock is not closed with the lock',
    file: 'src/capture/shm-flock/posix-shared-rows.ts',
    find: 'this.#flock(LOCK_UN);\n    closeSync(this.#lockFd);',
    replace: 'this.#flock(LOCK_UN);',
    killedBy: SHARED_ROWS,
  },
  {
    name: 'every-rank-saves',
    defect: 'each rank of shm-flock maps the table, locks and writes',
    file: 'src/capture/designs.ts',
    find: 'context.rank === 0 ? sharedRows() : null',
    replace: 'sharedRows()',
    killedBy: RANKS,
  },
  {
    name: 'slow-holder-waits-for-nobody',
    defect: 'in the storm a slow lock holder holds up nobody',
    file: 'src/sim/virtual/virtual-lock.ts',
    find: 'this.#waiting.add(owner);',
    replace: '',
    killedBy: { test: 'test/sim/virtual-lock.unit.test.ts' },
  },
  {
    name: 'room-counts-as-evicted',
    defect: 'blocks of a run whose rows never came pay for moving rows that did: some are moved again and again',
    file: 'src/capture/deltas/prefix-rows/block-rows.ts',
    find: 'attached.numCached * 2 <= this.#numStanding(attached.run)',
    replace: 'attached.numCached * 2 <= attached.blockIds.length',
    killedBy: { command: ['fuzz', '--seeds', '1', '--from', '60163704', '--jobs', '1'] },
  },
];
