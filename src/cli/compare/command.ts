/** `routed-experts compare A B`: whether two sources have the same rows, and if not, what happened. */

import { Command, Option } from 'commander';
import type { Comparison } from '../../analysis/agreement/diagnose.ts';
import { compareRowSets } from '../../analysis/agreement/diagnose.ts';
import type { OneSided } from '../../analysis/agreement/agreement.ts';
import type { RowSet } from '../../analysis/agreement/row-set.ts';
import { RowSetBuilder } from '../../analysis/agreement/row-set.ts';
import { RoutedExpertsError } from '../../contract/errors.ts';
import { openRows } from '../../rows/files/open-rows.ts';
import type { RowsFlags } from '../inspect/rows-flags.ts';
import { hintsOf, withRowsFlags } from '../inspect/rows-flags.ts';
import { columns, percent } from '../inspect/text-table.ts';
import { finite, whole } from '../options.ts';

const RULES = ['exact', 'sets', 'miles'] as const;
type Rule = (typeof RULES)[number];

type Flags = RowsFlags &
  Readonly<{ rule: Rule; milesRatio: number; promptLen?: number; allLayers?: boolean; json?: boolean }>;

/** Layers that are listed without being asked for. */
const FEW_LAYERS = 12;

export function compareCommand(): Command {
  const command = new Command('compare')
    .description('Compare rows of the same tokens from two sources, rollout and trainer, and say what happened')
    .argument('<a>', 'rows, in any form that inspect reads')
    .argument('<b>', 'rows that should be the same');
  return withRowsFlags(command)
    .addOption(new Option('--rule <rule>', 'what decides the exit code').choices(RULES).default('exact'))
    .option('--miles-ratio <n>', 'share of the ids that must be common by the rule "miles"', finite(0, 1), 0)
    .option('--prompt-len <n>', 'tokens of each prompt, where the form does not say it', whole(0))
    .option('--all-layers', 'list every layer')
    .option('--json', 'print the result as JSON')
    .addHelpText(
      'after',
      '\nRules: exact: every row of A is in B, ids and order; sets: in any order; miles: at most 1 % of tokens ' +
        'differ in a layer.\nExit code: 0 the rule holds, 1 it does not, 2 bad usage or rows that cannot be read.',
    )
    .action(compare);
}

async function compare(fileA: string, fileB: string, flags: Flags): Promise<void> {
  const [a, b] = [await rowSetOf(fileA, flags), await rowSetOf(fileB, flags)];
  if (a.topK !== b.topK) {
    throw RoutedExpertsError.of('BAD_FILE', fileB, `mixes shapes: top ${b.topK}, ${fileA} has top ${a.topK}`);
  }
  const comparison = compareRowSets(a, b, flags.milesRatio);
  const holds = ruleHolds(flags.rule, comparison);
  if (flags.json === true) {
    process.stdout.write(`${JSON.stringify({ ...comparison, rule: { name: flags.rule, holds } })}\n`);
  } else {
    const lines = textOf(comparison, flags.allLayers === true);
    process.stdout.write(`${[...lines, `rule "${flags.rule}": ${holds ? 'holds' : 'broken'}`].join('\n')}\n`);
  }
  if (!holds) process.exitCode = 1;
}

/** @throws BAD_FILE for rows that cannot be read, and where there are none */
async function rowSetOf(file: string, flags: Flags): Promise<RowSet> {
  const { source, capture } = await openRows([file], hintsOf(flags));
  const builder = new RowSetBuilder(source.shape);
  for await (const batch of source.batches()) builder.add(batch);
  const set = builder.end(capture?.requests);
  if (set.requests.every(({ numRows }) => numRows === 0)) {
    throw RoutedExpertsError.of('BAD_FILE', file, 'there is no row in it');
  }
  if (flags.promptLen === undefined) return set;
  return { ...set, requests: set.requests.map((request) => ({ ...request, promptLen: flags.promptLen! })) };
}

function ruleHolds(rule: Rule, { agreement }: Comparison): boolean {
  const isWhole = agreement.onlyA.length === 0 && agreement.onlyB.length === 0;
  const { numCompared, numExact, numSets, miles } = agreement;
  if (rule === 'miles') return miles.passes;
  return isWhole && numCompared > 0 && (rule === 'exact' ? numExact : numSets) === numCompared;
}

function textOf({ verdict, agreement }: Comparison, allLayers: boolean): string[] {
  const { numCompared, numExact, numSets, perLayer, first, onlyA, onlyB, paddingRows, miles } = agreement;
  const worst = perLayer.toSorted((x, y) => (x.sets ?? 0) - (y.sets ?? 0) || x.layer - y.layer);
  const isCut = !allLayers && perLayer.length > FEW_LAYERS;
  const shown = isCut ? worst.slice(0, FEW_LAYERS) : perLayer;
  return [
    `${verdict.words} (${verdict.kind})`,
    '',
    `${numCompared} rows compared: ${numExact} the same, ${numSets} the same as sets in every layer`,
    ...(first === null
      ? []
      : [
          `first difference: request ${first.request}, position ${first.position}, layer ${first.layer}: ` +
            `${first.a.join(', ')} against ${first.b.join(', ')}${first.isOfSets ? '' : ' (the same set)'}`,
        ]),
    ...oneSided('A', onlyA),
    ...oneSided('B', onlyB),
    ...(paddingRows.a + paddingRows.b === 0
      ? []
      : [`rows of −1 or zeros, no routing: ${paddingRows.a} in A, ${paddingRows.b} in B`]),
    `miles' rule: ${miles.numDifferent} of ${miles.numTokens} tokens (${percent(miles.share)}) differ in ` +
      `${miles.worstLayer === null ? 'every layer' : `layer ${miles.worstLayer}, the worst`}; ` +
      `at most 1 % may: ${miles.passes ? 'passes' : 'fails'}`,
    ...(isCut ? [`the ${FEW_LAYERS} worst of ${perLayer.length} layers (--all-layers shows all)`] : []),
    ...columns(
      ['layer', 'same', 'same set', 'ids in common'],
      shown.map(({ layer, exact, sets, overlap }) => [String(layer), percent(exact), percent(sets), percent(overlap)]),
    ),
  ];
}

function oneSided(name: string, requests: readonly OneSided[]): string[] {
  if (requests.length === 0) return [];
  const numRows = requests.reduce((sum, { ranges }) => sum + ranges.reduce((all, [from, to]) => all + to - from, 0), 0);
  const { request, ranges } = requests[0]!;
  const place = `${ranges[0]![0]} to ${ranges[0]![1] - 1} of request ${request}`;
  return [`${numRows} rows are in ${name} only, for example positions ${place}`];
}
