/**
 * Azure LLM inference traces: CSV with the columns TIMESTAMP, ContextTokens, GeneratedTokens, e.g.
 * `2023-11-16 18:15:46.6805900,374,44`. They say nothing of what prompts share, so no two prompts share anything.
 * Source: https://github.com/Azure/AzurePublicDataset (AzureLLMInferenceDataset2023), CC-BY-4.0.
 */

import { CsvError, parse } from 'csv-parse/sync';
import { RoutedExpertsError } from '../../contract/errors.ts';
import { show } from '../checks.ts';
import type { TraceEntry } from './trace.ts';

const COLUMNS = ['TIMESTAMP', 'ContextTokens', 'GeneratedTokens'] as const;

/** Date, time, fraction of a second to any number of digits, and perhaps an offset from UTC. */
const TIMESTAMP = /^(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d)?$/u;

/** One record of the file. `info` is csv-parse's: `lines` is the number of the line. */
type CsvRecord = Readonly<{ record: readonly string[]; info: Readonly<{ lines: number }> }>;

/**
 * Milliseconds since 1970, or `null` if it is no date. Without an offset the time is taken as UTC: only differences
 * matter.
 */
function parseTimestampMs(value: string): number | null {
  const [, date, time, fraction = '.0', zone = 'Z'] = TIMESTAMP.exec(value) ?? [];
  if (date === undefined || time === undefined) return null;
  const localMs = Date.parse(`${date}T${time}Z`);
  const seconds = Date.parse(`${date}T${time}${zone}`) / 1000;
  // A day that its month does not have is moved into the next month instead of refused.
  if (Number.isNaN(localMs) || new Date(localMs).toISOString().slice(0, 10) !== date) return null;
  return Number.isNaN(seconds) ? null : (seconds + Number(`0${fraction}`)) * 1000;
}

/** Where in a record each of `COLUMNS` stands; there may be other columns. */
function columnPlaces(header: CsvRecord, file: string): readonly number[] {
  return COLUMNS.map((column) => {
    const place = header.record.indexOf(column);
    if (place < 0) {
      const problem = `the header is ${show(header.record.join(','))}, not ${COLUMNS.join(',')}`;
      throw RoutedExpertsError.of('BAD_TRACE_LINE', file, header.info.lines, problem);
    }
    return place;
  });
}

function readRecords(content: string, file: string, limit: number): CsvRecord[] {
  try {
    // No field of these traces is quoted. With quotes off, one stray quote spoils its own line and not all lines behind
    // it.
    return parse(content, {
      bom: true,
      info: true,
      quote: false,
      record_delimiter: ['\r\n', '\n'],
      relax_column_count: true,
      skip_empty_lines: true,
      trim: true,
      ...(limit < Infinity ? { to: limit + 1 } : {}),
    }) as unknown as CsvRecord[];
  } catch (error) {
    if (error instanceof CsvError) throw RoutedExpertsError.of('BAD_FILE', file, `not CSV: ${error.message}`);
    throw error;
  }
}

/**
 * Parses the first `limit` requests; empty lines are skipped.
 *
 * @param file names the trace in errors
 * @throws BAD_TRACE_LINE with file, line and problem; BAD_FILE if it is not CSV at all
 */
export function parseAzure(content: string, file: string, limit: number = Infinity): TraceEntry[] {
  const [header, ...records] = readRecords(content, file, limit);
  if (header === undefined) return [];
  const places = columnPlaces(header, file);
  return records.map(({ record, info }) => {
    const broken = (problem: string) => RoutedExpertsError.of('BAD_TRACE_LINE', file, info.lines, problem);
    if (record.length !== header.record.length) {
      throw broken(`${record.length} fields, the header has ${header.record.length}`);
    }
    const [timestamp = '', ...lengths] = places.map((place) => record[place]!);
    const timestampMs = parseTimestampMs(timestamp);
    if (timestampMs === null) throw broken(`TIMESTAMP is ${show(timestamp)}, not a date and time`);
    const [inputLength, outputLength] = lengths.map((value, index) => {
      const length = Number(value);
      if (!/^\d+$/u.test(value) || !Number.isSafeInteger(length) || length < 1) {
        throw broken(`${COLUMNS[index + 1]} is ${show(value)}, not a whole number ≥ 1`);
      }
      return length;
    });
    return { timestampMs, inputLength: inputLength!, outputLength: outputLength!, hashIds: null };
  });
}
