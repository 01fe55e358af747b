/**
 * A stream as the bytes that it holds.
 *
 * @module
 */
/**
 * Reads a stream to its end.
 *
 * @param stream The stream.
 * @returns Its bytes.
 */
export function toBytes(stream: ReadableStream<Uint8Array>): Promise<Uint8Array> {
  return new Response(stream as ReadableStream<Uint8Array<ArrayBuffer>>).bytes();
}
