/** docs/matrix.md: designs × laws, and the mutants. Holds nothing that differs between machines. */

import { gapsThatApply } from '../../capture/designs.ts';
import type { CampaignPart, SeedViolation } from '../../sim/campaign.ts';
import type { Mutant } from '../../sim/mutants/mutant.ts';
import { LAWS, type LawName } from '../../sim/laws/violation.ts';
import type { MutationResult } from './mutation-results.ts';
import { loadedDesign } from './loaded-designs.ts';

export type MatrixCell = Readonly<{
  law: LawName;
  /** `declared`: the design gives it up; `seeds` says in how many scenarios that showed. */
  state: 'kept' | 'broken' | 'declared';
  seeds: number;
  /** First seed that showed it; `null`: none did. */
  first: number | null;
}>;

export type MutantRow = Readonly<{ mutant: Mutant; killedBy: SeedViolation | null }>;

/** One cell per law, in their order. A law that is broken beyond what is declared is broken. */
export function cellsOf(
  part: CampaignPart,
  { isOffloading = false }: Readonly<{ isOffloading?: boolean }> = {},
): MatrixCell[] {
  const gaps = gapsThatApply(loadedDesign(part.design).gaps, { isOffloading });
  return LAWS.map((law) => {
    const broken = part.violations.filter((violation) => violation.law === law);
    const shown = part.declared[law];
    if (broken.length > 0) return { law, state: 'broken', seeds: broken.length, first: broken[0]!.seed };
    if (gaps.some((gap) => gap.law === law)) {
      return { law, state: 'declared', seeds: shown?.seeds ?? 0, first: shown?.first ?? null };
    }
    return { law, state: 'kept', seeds: 0, first: null };
  });
}

export function renderMatrix(found: {
  seeds: number;
  pdSeeds: number;
  offloadSeeds: number;
  from: number;
  parts: readonly CampaignPart[];
  /** With a prefill engine in front. */
  pdParts: readonly CampaignPart[];
  /** With KV outside the device. */
  offloadParts: readonly CampaignPart[];
  rows: readonly MutantRow[];
  /** None: they were not run. */
  mutations: readonly MutationResult[];
}): string {
  const { seeds, pdSeeds, offloadSeeds, from, parts, pdParts, offloadParts, rows, mutations } = found;
  const numbers = `--seeds ${seeds} --pd-seeds ${pdSeeds} --offload-seeds ${offloadSeeds}`;
  const command = `routed-experts matrix ${numbers}${from === 1 ? '' : ` --from ${from}`}`;
  return [
    '# Who keeps which law',
    '',
    `Written by \`${command}\`: each design runs the seeds ${from} to ${from + seeds - 1}, the same storms ` +
      'for all, each twice. The figures do not depend on the machine; `docs/simulation.md` says how they come ' +
      'about, `docs/architecture.md` what the laws are.',
    '',
    'kept: in no scenario broken. **broken**: in so many scenarios, beyond what the design declares. gives up: ' +
      'declared in `src/capture/designs.ts`, with the scenarios in which it showed.',
    '',
    table(
      ['design', ...LAWS],
      parts.map((part) => [`\`${part.design}\``, ...cellsOf(part).map(showCell)]),
    ),
    '',
    '## With a prefill engine in front',
    '',
    `The seeds ${from} to ${from + pdSeeds - 1} again, each twice: prompts are computed by one engine and decoded ` +
      'by another, which loads the KV over a link that is slow, loses and garbles messages; leases run out, ' +
      'workers die on either side. Loads: scenarios in which a request that wants rows was given KV. A design ' +
      'that cannot take over KV from elsewhere (`acceptsExternalKv`) computes the prompts of such requests again.',
    '',
    table(
      ['design', 'loads', ...LAWS],
      pdParts.map((part) => [
        `\`${part.design}\``,
        `${part.marks['KV loaded for a request that wants rows']}`,
        ...cellsOf(part).map(showCell),
      ]),
    ),
    '',
    '## With KV outside the device',
    '',
    `The seeds ${from} to ${from + offloadSeeds - 1} again, each twice, in tighter pools and with prompts that come ` +
      'again: evicted blocks go to host memory and to files, and come back; copies are slow or fail, files are not ' +
      'written or not believed. Loads: scenarios in which a request that wants rows was given such blocks. ' +
      '`slot-store` and `shm-flock` are run as they would be if vLLM did not refuse the combination. `block-store` ' +
      'takes no such block, as its source refuses them.',
    '',
    table(
      ['design', 'loads', ...LAWS],
      offloadParts.map((part) => [
        `\`${part.design}\``,
        `${part.marks['block loaded back for a request that wants rows']}`,
        ...cellsOf(part, { isOffloading: true }).map(showCell),
      ]),
    ),
    '',
    '## What is given up, and why',
    '',
    table(
      ['design', 'law', 'reason'],
      parts.flatMap(({ design }) => gapRows(design)),
    ),
    '',
    ...brokenSection([...parts, ...pdParts, ...offloadParts]),
    '## Defects that the campaign must find',
    '',
    'Each is a small patch in `src/sim/mutants/`, of a design or of what is around it. First killing seed of 2,000.',
    '',
    table(
      ['#', 'mutant', 'defect', 'source', 'patched', 'killed by'],
      rows.map(({ mutant, killedBy }) => [
        String(mutant.number),
        `\`${mutant.name}\``,
        mutant.defect,
        mutant.source,
        `\`${mutant.base}\``,
        killedBy === null ? '**survives**' : `seed ${killedBy.seed}: ${killedBy.law} (${killedBy.kind})`,
      ]),
    ),
    '',
    `The storms of ${numbersOf(rows, 'inPd')} have a prefill engine in front, those of ` +
      `${numbersOf(rows, 'inOffload')} KV outside the device; those of ${numbersOf(rows, 'inPipeline')} run on a ` +
      'pipeline of stages.',
    '',
    ...mutationSection(mutations),
    '## Event logs',
    '',
    'The hash over the event logs of all scenarios (L10): a campaign of the same seeds gives the same on every ' +
      'machine.',
    '',
    table(
      'design|scenarios|steps|hash|with a prefill engine|steps|hash|with KV outside|steps|hash'.split('|'),
      parts.map((part, i) => [
        `\`${part.design}\``,
        ...[part, pdParts[i]!, offloadParts[i]!].flatMap((each) => [
          `${each.scenarios}`,
          `${each.steps}`,
          `\`${each.hash}\``,
        ]),
      ]),
    ),
    '',
  ]
    .map(wrapped)
    .join('\n');
}

function showCell({ state, seeds, first }: MatrixCell): string {
  switch (state) {
    case 'kept':
      return 'kept';
    case 'broken':
      return `**broken** (${seeds}, first ${first})`;
    case 'declared':
      return first === null ? 'gives up' : `gives up (${seeds}, first ${first})`;
    default:
      return state satisfies never;
  }
}

function gapRows(design: string): string[][] {
  const { gaps } = loadedDesign(design);
  return gaps.map(({ law, reason, shows }, i) => [
    i === 0 ? `\`${design}\`` : '',
    law,
    shows === 'with offloading' ? `with KV outside the device: ${reason}` : reason,
  ]);
}

function brokenSection(parts: readonly CampaignPart[]): string[] {
  const broken = parts.flatMap(({ violations }) => violations);
  if (broken.length === 0) return [];
  const shown = broken.slice(0, 20).map(({ design, seed, law, what }) => [`\`${design}\``, String(seed), law, what]);
  return ['## Broken', '', table(['design', 'seed', 'law', 'what'], shown), ''];
}

/** The numbers of the mutants whose storms are of that kind. */
function numbersOf(rows: readonly MutantRow[], kind: 'inPd' | 'inOffload' | 'inPipeline'): string {
  return rows.flatMap(({ mutant }) => (mutant.mutation[kind] === true ? [mutant.number] : [])).join(', ');
}

function mutationSection(mutations: readonly MutationResult[]): string[] {
  if (mutations.length === 0) return [];
  const shown = mutations.map(({ name, defect, file, command, killed, how }) => [
    `\`${name}\``,
    defect,
    `\`${file}\``,
    `\`${command}\``,
    killed ? how : `**survives**: ${how}`,
  ]);
  return [
    '## Defects that the tests must find',
    '',
    'Each is a replacement in one source file (`test/mutations/`), with the test or command that must fail. ' +
      '`npm run mutations` tries them all, `npm run mutations -- --only NAME` one.',
    '',
    table(['mutation', 'defect', 'patched file', 'run', 'killed by'], shown),
    '',
  ];
}

/** A paragraph in lines of 120 columns. A table stays as it is. */
function wrapped(paragraph: string): string {
  return paragraph.startsWith('|') ? paragraph : paragraph.replaceAll(/(.{1,120})(?: |$)/g, '$1\n').trimEnd();
}

/** Columns are as wide as their widest cell: as prettier writes a table. */
function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const cells = [head, ...rows].map((row) => row.map((cell) => cell.replaceAll('|', '\\|')));
  const widths = head.map((_, column) => Math.max(3, ...cells.map((row) => row[column]!.length)));
  const line = (row: readonly string[]): string => `| ${row.map((cell, i) => cell.padEnd(widths[i]!)).join(' | ')} |`;
  return [line(cells[0]!), line(widths.map((width) => '-'.repeat(width))), ...cells.slice(1).map(line)].join('\n');
}
