/**
 * Parquet files of requests and their rows, written as requests end:
 *
 *     record ─▶ [ group in memory ] ─▶ rows-….parquet.part ── complete ─▶ rows-….parquet
 *
 * A file has its name once it is whole: what a crash leaves has the other one. Invariant: the records that are held
 * are at most `groupBytes` and one record more, and a file is at most `fileBytes` and one group.
 */

import { existsSync, mkdirSync } from 'node:fs';
import { open, rename, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { ByteWriter, ParquetWriter } from 'hyparquet-writer';
import { RoutedExpertsError } from '../../contract/errors.ts';
import { columnsOf, recordBytes, schema, type RowsRecord } from './rows-record.ts';

export type RowsFilesOptions = Readonly<{
  directory: string;
  /** Names the writer of these files, among others that write to the directory. */
  name: string;
  groupBytes?: number;
  fileBytes?: number;
}>;

const GROUP_BYTES = 2 ** 20;
const FILE_BYTES = 2 ** 28;

type OpenFile = Readonly<{ path: string; handle: FileHandle; bytes: ByteWriter; parquet: ParquetWriter }>;

export class RowsFiles {
  readonly #directory: string;
  readonly #name: string;
  readonly #groupBytes: number;
  readonly #fileBytes: number;
  #group: RowsRecord[] = [];
  #groupSize = 0;
  #file: OpenFile | null = null;
  #numFiles = 0;
  /** What is being written: one thing after the other. */
  #tail: Promise<void> = Promise.resolve();

  /** Throws BAD_FILE for a directory that cannot be made. */
  constructor({ directory, name, groupBytes = GROUP_BYTES, fileBytes = FILE_BYTES }: RowsFilesOptions) {
    this.#directory = directory;
    this.#name = name;
    this.#groupBytes = groupBytes;
    this.#fileBytes = fileBytes;
    try {
      mkdirSync(directory, { recursive: true });
    } catch (error) {
      throw badFile(directory, error);
    }
  }

  /** Resolves when there is room for more. Rejects with BAD_FILE: what was held is lost, and later records are kept. */
  async add(record: RowsRecord): Promise<void> {
    this.#group.push(record);
    this.#groupSize += recordBytes(record);
    if (this.#groupSize >= this.#groupBytes) await this.#inTurn(() => this.#writeGroup());
  }

  /** Writes what is held, and ends the last file. Rejects with BAD_FILE. */
  async close(): Promise<void> {
    await this.#inTurn(async () => {
      await this.#writeGroup();
      await this.#endFile();
    });
  }

  #inTurn(write: () => Promise<void>): Promise<void> {
    const done = this.#tail.then(write);
    this.#tail = done.catch(() => {});
    return done;
  }

  async #writeGroup(): Promise<void> {
    const records = this.#group;
    if (records.length === 0) return;
    this.#group = [];
    this.#groupSize = 0;
    const file = (this.#file ??= await this.#begin());
    try {
      await file.parquet.write({ columnData: columnsOf(records), rowGroupSize: records.length });
      await flush(file);
    } catch (error) {
      this.#file = null;
      await file.handle.close().catch(() => {});
      throw badFile(file.path, error);
    }
    if (file.bytes.offset >= this.#fileBytes) await this.#endFile();
  }

  async #begin(): Promise<OpenFile> {
    const path = this.#nextPath();
    try {
      const handle = await open(`${path}.part`, 'wx');
      const bytes = new ByteWriter();
      const parquet = new ParquetWriter({ writer: bytes, schema: [...schema] as never, codec: 'UNCOMPRESSED' });
      return { path, handle, bytes, parquet };
    } catch (error) {
      throw badFile(path, error);
    }
  }

  /** Of no file that there is: those of others are never written over. */
  #nextPath(): string {
    for (;;) {
      const path = join(this.#directory, `rows-${this.#name}-${this.#numFiles++}.parquet`);
      if (!existsSync(path) && !existsSync(`${path}.part`)) return path;
    }
  }

  async #endFile(): Promise<void> {
    const file = this.#file;
    if (file === null) return;
    this.#file = null;
    try {
      await file.parquet.finish();
      await flush(file);
      await file.handle.sync();
      await file.handle.close();
      await rename(`${file.path}.part`, file.path);
    } catch (error) {
      throw badFile(file.path, error);
    }
  }
}

/** What was encoded goes to the disk; its place in memory is used again. */
async function flush({ bytes, handle }: OpenFile): Promise<void> {
  await handle.write(bytes.getBytes());
  bytes.index = 0;
}

function badFile(path: string, error: unknown): RoutedExpertsError {
  return RoutedExpertsError.of('BAD_FILE', path, (error as Error).message);
}
