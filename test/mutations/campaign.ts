/** Defects of campaigns: a shard that counts twice or not at all, a stop that depends on chance, code that differs. */

import type { SourceMutation } from './source-mutation.ts';

const room = 'src/cli/campaign';
const bookkeeping = { test: 'test/cli/campaign/campaign.unit.test.ts' };
const parts = { test: 'test/cli/campaign/parts.integration.test.ts' };
const queue = { test: 'test/cli/campaign/queue.integration.test.ts' };
const noQueue = { test: 'test/cli/campaign/no-queue.integration.test.ts' };

export const campaignMutations: readonly SourceMutation[] = [
  {
    name: 'campaign-results-in-order-of-arrival',
    defect: 'a series counts its results in the order in which they come',
    file: `${room}/core/campaign.ts`,
    find: 'shards.slice(0, end).map((shard) => this.#results.get(shard)!)',
    replace: '[...this.#results].filter(([shard]) => shards.slice(0, end).includes(shard)).map(([, result]) => result)',
    killedBy: bookkeeping,
  },
  {
    name: 'campaign-shard-counted-twice',
    defect: 'the violations of a shard that ran twice count twice',
    file: `${room}/core/campaign.ts`,
    find: "throw RoutedExpertsError.of('SHARD_DIFFERS', shard);\n      return false;",
    replace:
      "throw RoutedExpertsError.of('SHARD_DIFFERS', shard);\n" +
      '      this.#places.get(shard)!.series.numViolations += this.#numViolations(result);\n      return false;',
    killedBy: bookkeeping,
  },
  {
    name: 'campaign-two-results-taken-for-one',
    defect: 'a shard that has two different results is not noticed',
    file: `${room}/core/campaign.ts`,
    find: 'if (JSON.stringify(known) !== JSON.stringify(result)) throw',
    replace: 'if (JSON.stringify(known) === JSON.stringify(null)) throw',
    killedBy: bookkeeping,
  },
  {
    name: 'campaign-stops-where-it-stands',
    defect: 'violations that came out of their order stop a series, wherever it stands',
    file: `${room}/core/campaign.ts`,
    find: 'this.#count(this.#places.get(shard)!.series);\n    return true;',
    replace:
      'const { series } = this.#places.get(shard)!;\n    this.#count(series);\n' +
      '    const early = [...this.#results.values()].reduce((sum, each) => sum + this.#numViolations(each), 0);\n' +
      '    if (early > series.mostViolations) series.end = Math.min(series.end, this.#results.size);\n    return true;',
    killedBy: bookkeeping,
  },
  {
    name: 'campaign-runs-on-behind-its-end',
    defect: 'shards behind the end of their series are run and count',
    file: `${room}/core/campaign.ts`,
    find: 'if (series.numViolations > series.mostViolations) series.end = series.numCounted;',
    replace: '',
    killedBy: bookkeeping,
  },
  {
    name: 'campaign-share-off-by-one',
    defect: 'the last of several shares has no shards',
    file: `${room}/core/share.ts`,
    find: 'return shard % count === index;',
    replace: 'return shard % count === index && (index === 0 || index < count - 1);',
    killedBy: bookkeeping,
  },
  {
    name: 'campaign-parts-of-other-code',
    defect: 'results of another commit are merged',
    file: `${room}/core/part.ts`,
    find: 'return `version ${version}, commit ${commit}`;',
    replace: 'return commit === null ? commit : `version ${version}`;',
    killedBy: parts,
  },
  {
    name: 'campaign-parts-of-another-campaign',
    defect: 'parts of other seeds are merged',
    file: `${room}/core/part.ts`,
    find: 'if (other !== null) throw bad(',
    replace: "if (other === '') throw bad(",
    killedBy: parts,
  },
  {
    name: 'campaign-part-twice',
    defect: 'a part that is given twice is taken for another',
    file: `${room}/core/part.ts`,
    find: 'if (twin !== undefined) throw bad(',
    replace: "if (twin === '') throw bad(",
    killedBy: parts,
  },
  {
    name: 'campaign-torn-line-glued',
    defect: 'a part that goes on writes its next shard behind a line that is not whole',
    file: `${room}/result-file.ts`,
    find: 'truncateSync(file, Buffer.byteLength(text));',
    replace: 'truncateSync(file, Buffer.byteLength(readFileSync(file)));',
    killedBy: parts,
  },
  {
    name: 'campaign-goes-on-as-another',
    defect: 'a campaign that is resumed takes other seeds than it began with',
    file: `${room}/campaign-file.ts`,
    find: "field === 'kind' || fields.has(field)",
    replace: "field === 'kind'",
    killedBy: parts,
  },
  {
    name: 'queue-of-all-code',
    defect: 'workers of every commit take shards from one queue',
    file: `${room}/queue/shard-queue.ts`,
    find: 'return `shards-${version}-${commit}`;',
    replace: 'return commit === null ? commit : `shards-${version}`;',
    killedBy: queue,
  },
  {
    name: 'queue-forgotten-shards',
    defect: 'a campaign does not put its shards again into a Redis that forgot them',
    file: `${room}/queue/run-on-queue.ts`,
    find: 'to.server.onReconnect(() => this.#put.clear());',
    replace: '',
    killedBy: queue,
  },
  {
    name: 'queue-result-taken-before-it-is-kept',
    defect: 'results are taken away from the queue, and kept nowhere',
    file: `${room}/run-campaign.ts`,
    find: 'file?.append(shard, result);',
    replace: '',
    killedBy: queue,
  },
  {
    name: 'queue-shard-of-the-dead',
    defect: 'the shards of a worker that died stay with it',
    file: `${room}/queue/take-shards.ts`,
    find: 'stalledInterval: 500 * lostAfter,',
    replace: 'skipStalledCheck: true,',
    killedBy: queue,
  },
  {
    name: 'queue-failed-shard-waited-for',
    defect: 'a campaign waits for a shard that failed for good',
    file: `${room}/queue/run-on-queue.ts`,
    find: 'if (failure !== null && !this.#isFirstRound) {',
    replace: 'if (failure !== null && failure.shard < 0) {',
    killedBy: queue,
  },
  {
    name: 'queue-too-old',
    defect: 'a Redis that BullMQ cannot use is taken',
    file: `${room}/queue/queue-server.ts`,
    find: 'Number.parseInt(version, 10) >= OLDEST_MAJOR',
    replace: 'Number.parseInt(version, 10) >= 0',
    killedBy: noQueue,
  },
  {
    name: 'queue-silent',
    defect: 'a command waits for a server that never replies',
    file: `${room}/queue/queue-server.ts`,
    find: '      commandTimeout: COMMAND_MS,\n',
    replace: '',
    killedBy: noQueue,
  },
  {
    name: 'queue-password-shown',
    defect: 'messages show the password of the queue',
    file: `${room}/queue-address.ts`,
    find: 'const { protocol, host, pathname } = new URL(url);',
    replace: 'const { protocol, host, pathname, password } = new URL(url);\n  if (password !== null) return url;',
    killedBy: noQueue,
  },
];
