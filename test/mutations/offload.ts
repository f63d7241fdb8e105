import type { SourceMutation } from './source-mutation.ts';

/** The storm runs the tier that serves. */
const storm = { command: ['fuzz', '--offload', '--seeds', '2000', '--jobs', '1'] };
const core = { test: 'test/handover/tier/kv-tier.unit.test.ts' };
const folder = { test: 'test/host/kv-offload.integration.test.ts' };
const tier = 'src/handover/tier/kv-tier.ts';
const handovers = 'src/engine/kv-handovers.ts';

export const offloadMutations: readonly SourceMutation[] = [
  {
    name: 'uncomputed-block-kept',
    defect: 'a block whose tokens were taken out of the step that was to compute them is kept outside the device',
    file: 'src/engine/kv/block-pool.ts',
    find: '    this.#uncache(blockId);\n',
    replace: '    this.onReused?.(blockId, this.#hashes, blockId * this.hashWords);\n    this.#uncache(blockId);\n',
    killedBy: storm,
  },
  {
    name: 'tier-asked-once',
    defect: 'a request that was preempted does not look for its blocks outside the device',
    file: handovers,
    find: '    if (this.#isTier) request.externalTokens = -1;\n',
    replace: '',
    killedBy: storm,
  },
  {
    name: 'preempted-load-is-new',
    defect: 'a preempted request whose blocks came back is told to the workers as a new one',
    file: handovers,
    find: 'request.numPreemptions > 0 ? RequestStatus.preempted : RequestStatus.waiting',
    replace: 'RequestStatus.waiting',
    killedBy: storm,
  },
  {
    name: 'rows-of-unfollowed-blocks',
    defect: 'the design is asked for rows of blocks that nobody wants rows of (L5)',
    file: handovers,
    find: 'pool.isFollowed(blockId) ? (this.#capture!.evictedRows?.(blockId) ?? null) : null',
    replace: 'this.#capture?.evictedRows?.(blockId) ?? null',
    killedBy: storm,
  },
  {
    name: 'rowless-block-accepted',
    defect: 'a request that wants rows begins with a block that came back without them',
    file: handovers,
    find: 'this.#isTier && request.wanted && !this.#accepts(request, false)',
    replace: 'false',
    killedBy: storm,
  },
  {
    name: 'load-waits-for-no-copy',
    defect: 'a load is written before all of its blocks have come',
    file: tier,
    find: '    if (underWay.numComing === 0) this.#actions.writeKv(underWay);\n  }\n\n  /** The blocks of a copy',
    replace: '    this.#actions.writeKv(underWay);\n  }\n\n  /** The blocks of a copy',
    killedBy: storm,
  },
  {
    name: 'read-behind-the-next-step',
    defect: 'what every other step evicts is read behind it',
    file: 'src/engine/scheduler.ts',
    find: '    this.requests.handovers?.onPlanned();\n',
    replace: '    if (step.output.stepId % 2 === 0) this.requests.handovers?.onPlanned();\n',
    killedBy: storm,
  },
  {
    name: 'tier-one-too-many',
    defect: 'host memory holds one block more than it may',
    file: 'src/handover/tier/host-blocks.ts',
    find: 'this.#blocks.size >= this.#capacity',
    replace: 'this.#blocks.size > this.#capacity',
    killedBy: storm,
  },
  {
    name: 'copies-unbounded',
    defect: 'any number of copies may be under way',
    file: tier,
    find: 'this.#copies.size >= mostCopies || ',
    replace: '',
    killedBy: core,
  },
  {
    name: 'tier-rows-a-view',
    defect: 'rows outside the device are a view, which keeps the memory of their neighbours',
    file: 'src/handover/tier/tier-block.ts',
    find: 'chunk: chunk.slice()',
    replace: 'chunk',
    killedBy: core,
  },
  {
    name: 'rows-under-way-promised',
    defect: 'rows that have not come are promised with their block',
    file: 'src/handover/tier/tier-block.ts',
    find: ' && (this.#evicted === null || this.#evicted.read() !== null)',
    replace: '',
    killedBy: core,
  },
  {
    name: 'lost-copy-comes',
    defect: 'a copy that was under way when the workers were lost is believed',
    file: tier,
    find: '    if (!this.#copies.delete(copy)) return;\n    const words',
    replace: '    const words',
    killedBy: core,
  },
  {
    name: 'unfinished-file-found',
    defect: 'a file is found while it is being written',
    file: 'src/handover/tier/file-blocks.ts',
    find: 'entry === undefined || this.#writing.has(entry) ? null : entry',
    replace: 'entry ?? null',
    killedBy: { test: 'test/handover/tier/file-blocks.unit.test.ts' },
  },
  {
    name: 'checksum-unread',
    defect: 'a corrupt file is believed',
    file: 'src/host/kv-tier/block-file-format.ts',
    find: '!sha256(file.subarray(0, end)).equals(file.subarray(end))',
    replace: 'false',
    killedBy: folder,
  },
  {
    name: 'any-weights',
    defect: 'blocks in files are used under other weights',
    file: 'src/host/kv-tier/kv-offload.ts',
    find: 'blockSize: engine.blockSize, weightVersion, epoch',
    replace: "blockSize: engine.blockSize, weightVersion: '', epoch",
    killedBy: folder,
  },
];
