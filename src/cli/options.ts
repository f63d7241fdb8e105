/**
 * What commands share of their flags. Numbers are checked when they are read, so that a wrong one ends with what is
 * wanted and exit code 2.
 */

import { type Command, InvalidArgumentError, Option } from 'commander';
import { rowsLayersNames } from '../capture/row-layers.ts';
import type { RowsLayers } from '../contract/config.ts';
import { RoutedExpertsError } from '../contract/errors.ts';
import type { OffloadNames } from '../host/kv-tier/offload-options.ts';
import type { PipelineOptions } from '../host/pipeline-options.ts';
import { ROUTER_KERNELS } from '../kernels/model/route/engine-router.ts';

/** A whole number in [min, max]. */
export function whole(min: number, max: number = Number.MAX_SAFE_INTEGER): (text: string) => number {
  return (text) => {
    const value = text.trim() === '' ? Number.NaN : Number(text);
    if (Number.isInteger(value) && value >= min && value <= max) return value;
    throw new InvalidArgumentError(`Give ${wanted('a whole number', min, max)}.`);
  };
}

/** A finite number in [min, max]. */
export function finite(min: number, max: number = Number.MAX_VALUE): (text: string) => number {
  return (text) => {
    const value = text.trim() === '' ? Number.NaN : Number(text);
    if (Number.isFinite(value) && value >= min && value <= max) return value;
    throw new InvalidArgumentError(`Give ${wanted('a number', min, max)}.`);
  };
}

/** A comma-separated list of what `each` reads. */
export function list<T>(each: (text: string) => T): (text: string) => T[] {
  return (text) => text.split(',').map((item) => each(item.trim()));
}

/** A rate without drafts would be ignored. Throws BAD_VALUE. */
export function checkDraftFlags(
  { numSpeculativeTokens }: Readonly<{ numSpeculativeTokens: number }>,
  command: Command,
): void {
  if (numSpeculativeTokens > 0 || command.getOptionValueSource('draftAcceptanceRate') !== 'cli') return;
  const atLeast = 'at least 1, or leave out --draft-acceptance-rate';
  throw RoutedExpertsError.of('BAD_VALUE', '--num-speculative-tokens', numSpeculativeTokens, atLeast);
}

/** What commands call the options of KV offloading. */
export const OFFLOAD_FLAGS: OffloadNames = {
  hostBlocks: '--kv-offload-blocks',
  dir: '--kv-offload-dir',
  prefixCaching: 'prefix caching',
};

/** `--router-kernels` of every command that starts an engine. */
export function routerKernelsOption(): Option {
  return new Option('--router-kernels <way>', 'route in one kernel, or in a gate and a router kernel (see "devices")')
    .choices(ROUTER_KERNELS)
    .default('auto');
}

/** `--rows-layers` of the same commands. */
export function rowsLayersOption(standard: RowsLayers = 'routers'): Option {
  return new Option('--rows-layers <axis>', 'layers that rows count: those with a router, or all, dense ones as zeros')
    .choices(rowsLayersNames)
    .default(standard);
}

/** `--pipeline-parallel` and `--pipeline-split` of the same commands. */
export function pipelineParallelOption(): Option {
  const what = 'stages that the layers are split into; each has its share of --ranks (default: 1 rank each)';
  return new Option('--pipeline-parallel <n>', what).argParser(whole(1, 16));
}

export function pipelineSplitOption(): Option {
  return new Option(
    '--pipeline-split <layers>',
    'layers of each stage, as 3,20,20 (default: as even as can be)',
  ).argParser(list(whole(1)));
}

/** `--ranks 1` is its default: a stage has one rank at least. */
export function pipelineOf(
  flags: Readonly<{ pipelineParallel?: number; pipelineSplit?: number[]; ranks: number; queueDepth?: number }>,
): PipelineOptions {
  const { pipelineParallel, pipelineSplit, ranks, queueDepth } = flags;
  return { pipelineParallel, pipelineSplit, queueDepth, numRanks: ranks === 1 ? undefined : ranks };
}

function wanted(kind: string, min: number, max: number): string {
  const isOpen = max === Number.MAX_SAFE_INTEGER || max === Number.MAX_VALUE;
  return isOpen ? `${kind} ≥ ${min}` : `${kind} in [${min}, ${max}]`;
}
