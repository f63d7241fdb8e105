import type { SourceMutation } from './source-mutation.ts';

const scheduler = 'src/engine/scheduler.ts';
const rules = { test: 'test/engine/schedule-rules.unit.test.ts' };
const conformance = { test: 'test/conformance/conformance.unit.test.ts' };
const storms = { command: ['fuzz', '--seeds', '2000'] };

export const scheduleMutations: readonly SourceMutation[] = [
  {
    name: 'left-out-drafts-cleared',
    defect: 'a request that is left out of a step loses its drafts',
    file: scheduler,
    find: '    if (step.wanted.length > 0) this.#capture!.onScheduled?.(',
    replace:
      '    for (const request of this.requests.running)\n' +
      '      if (request.scheduledStepId !== step.output.stepId) request.numDraftTokens = 0;\n' +
      '    if (step.wanted.length > 0) this.#capture!.onScheduled(',
    killedBy: rules,
  },
  {
    name: 'narrow-padding-left-out',
    defect: 'a single token joins decodes without padding where the threshold would narrow it',
    file: scheduler,
    find: 'const isPadded = numNew === 1 && isDecodeOnly && numSpeculativeTokens > 0;',
    replace:
      'const fits = longPrefillTokenThreshold === 0 || numSpeculativeTokens < longPrefillTokenThreshold;\n' +
      '      const isPadded = numNew === 1 && isDecodeOnly && numSpeculativeTokens > 0 && fits;',
    killedBy: rules,
  },
  {
    name: 'more-padding-than-tokens',
    defect: 'padding that the threshold narrows is counted in full',
    file: scheduler,
    find: 'const numPadding = isPadded ? numNew - 1 : 0;',
    replace: 'const numPadding = isPadded ? numSpeculativeTokens : 0;',
    killedBy: rules,
  },
  {
    name: 'watermark-for-nobody',
    defect: 'blocks are held back from a request that would run alone',
    file: scheduler,
    find: 'return this.requests.running.length > 0 ? this.kv.watermarkBlocks : 0;',
    replace: 'return this.kv.watermarkBlocks;',
    killedBy: rules,
  },
  {
    name: 'watermark-given-away',
    defect: 'an admission takes the blocks that are held back for requests that run',
    file: scheduler,
    find: 'return this.requests.running.length > 0 ? this.kv.watermarkBlocks : 0;',
    replace: 'return 0;',
    killedBy: rules,
  },
  {
    name: 'room-for-drafts-twice',
    defect: 'a request is refused that would have run to its end',
    file: 'src/engine/engine-core.ts',
    find: 'promptLength + maxTokens - 1 + numSpeculativeTokens',
    replace: 'promptLength + maxTokens - 1 + 2 * numSpeculativeTokens',
    killedBy: rules,
  },
  {
    name: 'no-room-for-drafts',
    defect: 'a request is taken in that preempts itself for ever',
    file: 'src/engine/engine-core.ts',
    find: 'promptLength + maxTokens - 1 + numSpeculativeTokens',
    replace: 'promptLength + maxTokens - 1',
    killedBy: storms,
  },
  {
    name: 'model-length-ignored',
    defect: 'drafts are verified behind the last position of the model',
    file: scheduler,
    find: '      if (numNew > maxModelLen - 1 - numComputed) numNew = maxModelLen - 1 - numComputed;\n',
    replace: '',
    killedBy: storms,
  },
  {
    name: 'model-length-off-by-one',
    defect: 'the last token that fits the model is an input',
    file: scheduler,
    find: 'if (numNew > maxModelLen - 1 - numComputed) numNew = maxModelLen - 1 - numComputed;',
    replace: 'if (numNew > maxModelLen - numComputed) numNew = maxModelLen - numComputed;',
    killedBy: storms,
  },
  {
    name: 'withdrawn-hashes-kept',
    defect: 'a request that leaves the step being planned keeps hashes on blocks that nobody computes',
    file: scheduler,
    find: 'for (const id of uncomputed) this.kv.pool.evict(id);',
    replace: '',
    killedBy: storms,
  },
  {
    name: 'second-preemption-undrops',
    defect: 'a second preemption delivers output that a cache reset had thrown away',
    file: 'src/engine/request.ts',
    find: 'dropStaleOutput || (this.dropStaleOutput && this.numStaleOutputTokens > 0)',
    replace: 'dropStaleOutput',
    killedBy: storms,
  },
  {
    name: 'preemption-ahead-skips-another',
    defect: 'the request behind one that was preempted ahead of it misses the step',
    file: scheduler,
    find: '        if (at < next) next -= 1;\n',
    replace: '        if (victim.stepNumTokens > 0 && victim.scheduledStepId === -1) next -= 1;\n',
    killedBy: rules,
  },
  {
    name: 'check-begins-behind-rejected-drafts',
    defect: 'a check takes optimistic positions for those that the worker ran',
    file: 'src/conformance/schedule-check.ts',
    find: 'spans.push({ ...span, tokenStart: Math.min(span.tokenStart, lastStart) });',
    replace: 'spans.push(span.numDrafts > 0 ? { ...span, tokenStart: Math.min(span.tokenStart, lastStart) } : span);',
    killedBy: conformance,
  },
  {
    name: 'rare-paths-not-missed',
    defect: 'a campaign passes that never took a rare path',
    file: 'src/cli/fuzz/report.ts',
    find: 'if (scenarios < COVERAGE_SCENARIOS) return [];',
    replace: 'if (scenarios > 0) return [];',
    killedBy: { test: 'test/sim/coverage.unit.test.ts' },
  },
];
