/** Flags of `serve` for its clients: their dialects, the rows that they get, and how fast their tokens come. */

import { Option } from 'commander';
import { RoutedExpertsError } from '../../contract/errors.ts';
import type { PaceOptions } from '../../serve/answer/pacer.ts';
import { dialectNames, type DialectName } from '../../serve/dialects/endpoints.ts';
import type { ServeConfig } from '../../serve/serve-config.ts';
import { finite, whole } from '../options.ts';

export type ClientFlags = {
  dialect: DialectName;
  enableReturnRoutedExperts: boolean;
  saveRows?: string;
  timeToFirstToken: number;
  interTokenLatency: number;
  timeJitter: number;
  seed: number;
};

export function clientOptions(): readonly Option[] {
  return [
    new Option('--enable-return-routed-experts', 'every request gets rows, unless it says that it wants none').default(
      false,
    ),
    new Option('--dialect <name>', 'whose clients send what tells nothing of its sender (docs/serving.md)')
      .choices(dialectNames)
      .default('auto'),
    new Option('--save-rows <dir>', 'write the rows of all requests that have them to Parquet files'),
    new Option('--time-to-first-token <ms>', 'no first token comes sooner').argParser(finite(0, 3_600_000)).default(0),
    new Option('--inter-token-latency <ms>', 'no other token comes sooner after the one before it')
      .argParser(finite(0, 60_000))
      .default(0),
    new Option('--time-jitter <x>', 'each of these times is longer or shorter by up to this share')
      .argParser(finite(0, 1))
      .default(0),
    new Option('--seed <n>', 'of the jitter').argParser(whole(0, 2 ** 32 - 1)).default(0),
  ];
}

/** What of a server's configuration these flags say. */
export function clientConfig(flags: ClientFlags): Pick<ServeConfig, 'dialect' | 'isEveryRowReturned' | 'saveRows'> {
  const { dialect, enableReturnRoutedExperts, saveRows = null } = flags;
  return { dialect, isEveryRowReturned: enableReturnRoutedExperts, saveRows };
}

/** Throws BAD_VALUE for jitter of no time. */
export function toPace({ timeToFirstToken, interTokenLatency, timeJitter, seed }: ClientFlags): PaceOptions | null {
  if (timeToFirstToken === 0 && interTokenLatency === 0) {
    if (timeJitter === 0) return null;
    const wanted = 'it with --time-to-first-token or --inter-token-latency only';
    throw RoutedExpertsError.of('BAD_VALUE', '--time-jitter', timeJitter, wanted);
  }
  return { timeToFirstTokenMs: timeToFirstToken, interTokenMs: interTokenLatency, jitter: timeJitter, seed };
}
