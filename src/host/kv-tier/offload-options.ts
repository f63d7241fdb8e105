/** Options of KV that is kept outside the device, and what names its files. */

import type { EngineConfig, ModelConfig } from '../../contract/config.ts';
import { RoutedExpertsError } from '../../contract/errors.ts';

/** Where KV blocks go that the prefix cache gives up. */
export type KvOffloadOptions = Readonly<{
  /** Blocks in host memory; 0 = nothing is kept outside the device. */
  hostBlocks: number;
  /** A folder for blocks that outlive the process; `null` = none. */
  dir: string | null;
  /** The most blocks in that folder. */
  dirBlocks: number;
  /** Names the weights: blocks in files that were computed under others are of no use. */
  weightVersion: string;
}>;

export const NO_OFFLOAD: KvOffloadOptions = { hostBlocks: 0, dir: null, dirBlocks: 65_536, weightVersion: '' };

/** What the caller calls these options, for messages. */
export type OffloadNames = Readonly<Record<'hostBlocks' | 'dir' | 'prefixCaching', string>>;

/** Throws BAD_VALUE for a folder without host memory in front, and for a tier of a cache that is switched off. */
export function checkOffload(
  { hostBlocks, dir }: KvOffloadOptions,
  { enablePrefixCaching }: Pick<EngineConfig, 'enablePrefixCaching'>,
  names: OffloadNames,
): void {
  if (dir !== null && hostBlocks === 0) {
    const wanted = `it with ${names.hostBlocks}: blocks go through host memory on their way to files and back`;
    throw RoutedExpertsError.of('BAD_VALUE', names.dir, dir, wanted);
  }
  if (hostBlocks > 0 && !enablePrefixCaching) {
    const wanted = `0 without ${names.prefixCaching}: blocks are found again by the hashes of the prefix cache`;
    throw RoutedExpertsError.of('BAD_VALUE', names.hostBlocks, hostBlocks, wanted);
  }
}

/** All that must be equal for a block to be of use, beside the tokens up to its end. */
export type TierIdentity = Readonly<{
  model: ModelConfig;
  blockSize: number;
  weightVersion: string;
  /** Folded into the keys; see `Routing`. */
  epoch: number | 'by step' | 'replay';
  /** A block has the keys of each of so many pipeline stages. */
  numStages: number;
}>;
