/** A bench that replays a recording: `--routing replay --recording FILE`. */

import type { ModelConfig } from '../../../contract/config.ts';
import { RoutedExpertsError } from '../../../contract/errors.ts';
import type { RecordedRouting } from '../../../contract/recorded-routing.ts';
import { readRecording } from '../../../workload/traces/read-trace.ts';

/**
 * The recording that the flags ask for, or `null`. Throws BAD_VALUE for one flag without the other, BAD_FILE for a bad
 * recording.
 */
export function recordingOf(routing: 'deterministic' | 'replay', file: string | undefined): RecordedRouting | null {
  if ((routing === 'replay') === (file !== undefined)) return file === undefined ? null : readRecording(file);
  const name = file === undefined ? '--recording' : '--routing';
  const given = file === undefined ? 'missing' : routing;
  throw RoutedExpertsError.of('BAD_VALUE', name, given, '--routing replay and --recording FILE, or neither');
}

/** The shape of the recorded model, with room for every recorded token. */
export function recordedModel({ name, requests, ...shape }: RecordedRouting, gateWidth: number): ModelConfig {
  const tokens = requests.flatMap(({ promptTokenIds, outputTokenIds }) => [promptTokenIds, outputTokenIds]);
  const largest = tokens.flatMap((ids) => [...ids]).reduce((a, b) => Math.max(a, b), 1);
  return { name, ...shape, vocabSize: largest + 1, gateWidth };
}
