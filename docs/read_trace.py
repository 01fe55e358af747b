#!/usr/bin/env python3
"""Lists the events of a trace, written by docs/trace-format.md alone: read_trace.py FILE

Needs Python 3.9 and the zstandard module (Debian: python3-zstandard) or the zstd program.
Stops at the first damage, with status 3.
"""
import json, struct, subprocess, sys, zlib
COLUMNS, LANES, WORD_LANES, TIME_LANES = 234, 3, 61, 16

class Damaged(Exception):
    """The trace is not as it was written."""

def unzstd(data, size):
    try:
        import zstandard
        return zstandard.ZstdDecompressor().decompress(data, max_output_size=size)
    except ImportError:
        return subprocess.run(["zstd", "-dcq"], input=data, stdout=subprocess.PIPE, check=True).stdout

class Msgpack:
    """MessagePack values, one after the other."""
    PLAIN = {0xC0: None, 0xC2: False, 0xC3: True}
    SIZES = dict(zip(b"\xc4\xc5\xc6\xd9\xda\xdb\xdc\xdd\xde\xdf", "BHIBHIHIHI"))
    NUMBERS = dict(zip(range(0xCA, 0xD4), "fdBHIQbhiq"))
    def __init__(self, data):
        self.data, self.at = data, 0
    def take(self, size):
        self.at += size
        return self.data[self.at - size:self.at]
    def number(self, code):
        return struct.unpack(">" + code, self.take(struct.calcsize(code)))[0]
    def value(self):
        head = self.number("B")
        if head < 0x80 or head >= 0xE0:
            return head if head < 0x80 else head - 256
        if head in self.PLAIN:
            return self.PLAIN[head]
        if head in self.NUMBERS:
            value = self.number(self.NUMBERS[head])
            return int(value) if value == value // 1 and abs(value) < 1e21 else value
        size = self.number(self.SIZES[head]) if head in self.SIZES else head & (31 if head >= 0xA0 else 15)
        if head < 0x90 or head in (0xDE, 0xDF):
            return {self.value(): self.value() for _ in range(size)}
        if head < 0xA0 or head in (0xDC, 0xDD):
            return [self.value() for _ in range(size)]
        data = self.take(size)
        return "0x" + data.hex() if head in (0xC4, 0xC5, 0xC6) else data.decode()

class Channel:
    words, size, mask, from_last, places = [], 0, None, False, []

class Block:
    """Decodes the content of one events block."""
    def __init__(self, content, kinds):
        self.content, self.kinds = content, kinds
        head = iter(content)
        sizes = [self.groups(lambda _: next(head)) for _ in range(COLUMNS)]
        start = len(content) - sum(sizes)
        self.at = [start + sum(sizes[:i]) for i in range(COLUMNS)]
        self.ends = [at + size for at, size in zip(self.at, sizes)]
        self.last, self.channels, self.slots, self.texts, self.lists = {}, {}, {}, [], []
        self.vcpu, self.time = None, 0
    def byte(self, column):
        self.at[column] += 1
        if self.at[column] > self.ends[column]:
            raise Damaged("an event runs beyond its columns")
        return self.content[self.at[column] - 1]
    def groups(self, byte):
        got, value, i = 128, 0, 0
        while got > 127:
            got = byte(i)
            value |= (got & 127) << 7 * i
            i += 1
        return value
    def varint(self):
        return self.groups(lambda _: self.byte(1))
    def signed(self, lane):
        value = self.groups(lambda i: self.byte(LANES + 3 * lane + min(i, 2)))
        return value // 2 if value % 2 == 0 else -(value // 2) - 1
    def word(self, kind, place, base):
        return (base + self.signed((place + 7 * kind) % WORD_LANES)) & 0xFFFFFFFF
    def take(self, size):
        self.at[2] += size
        if self.at[2] > self.ends[2]:
            raise Damaged("bytes run beyond their column")
        return self.content[self.at[2] - size:self.at[2]]
    def event(self):
        head = self.byte(0)
        kind, fields = head & 63, self.kinds[head & 63][1]
        ops = sum(self.byte(0) << 8 * i for i in range((len(fields) + 3) // 4))
        if head & 128:
            self.vcpu = self.varint()
        if not head & 64:
            self.time += self.signed(WORD_LANES + kind % TIME_LANES)
        values, shown = {}, []
        for i, (name, type_, at, by) in enumerate(fields):
            op = ops >> 2 * i & 3
            if op and type_ in ("u32", "i32", "u64", "text", "map"):
                values[name] = self.scalar(kind, i, type_, op)
            elif op:
                slot = (self.vcpu, type_, name, values.get(at))
                values[name] = self.image(kind, slot, values.get(by), op)
            if op:
                shown.append("%s=%s" % (name, show(values[name], type_)))
        time = "-" if head & 64 else str(self.time)
        return " ".join([time, str(self.vcpu), self.kinds[kind][0]] + shown)
    def scalar(self, kind, i, type_, op):
        key = (self.vcpu, kind, i)
        last = value = self.last.get(key, {"text": "", "map": {}}.get(type_, 0))
        if op != 1 and type_ == "text":
            if op == 3:
                self.texts.append(self.take(self.varint()).decode())
            value = self.texts[-1 if op == 3 else self.varint()]
        elif op != 1 and type_ == "map":
            value = Msgpack(self.take(self.varint())).value()
        elif op != 1:
            value = self.word(kind, i, last & 0xFFFFFFFF)
            high = last >> 32
            if type_ == "u64":
                value |= (self.word(kind, i, high) if op == 3 else high) << 32
            elif type_ == "i32" and value >> 31:
                value -= 1 << 32
        self.last[key] = value
        return value
    def places(self):
        place = -1
        return [place := place + 1 + self.varint() for _ in range(self.varint())]
    def image(self, kind, slot, by, op):
        channel = self.channels.setdefault((slot, kind, by), Channel())
        shape = self.varint() if op == 2 else 0
        if op == 2:
            if shape & 2:
                channel.size, channel.mask = self.varint(), None
                channel.words = [0] * ((channel.size + 3) // 4)
            if shape & 4:
                words = list(channel.mask or [0] * len(channel.words)) if self.varint() else None
                for place in self.places() if words else []:
                    words[place] = self.word(kind, place, words[place])
                channel.mask = words
            if shape >> 3 == 2:
                self.lists.append(self.places())
            channel.from_last, channel.places = shape & 1, []
            if shape >> 3 in (1, 2):
                channel.places = self.lists[-1 if shape >> 3 == 2 else self.varint()]
        if shape >> 3 == 3:
            data = self.take(channel.size) + b"\0\0\0"
            channel.words = list(struct.unpack_from("<%dI" % len(channel.words), data))
        elif op != 3:
            if channel.from_last:
                channel.words = list(self.slots[slot].words)
            for place in channel.places:
                channel.words[place] = self.word(kind, place, channel.words[place])
        self.slots[slot] = channel
        return [words and struct.pack("<%dI" % len(words), *words)[:channel.size]
                for words in (channel.words, channel.mask)]

def show(value, type_):
    if type_ in ("text", "map"):
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    if type_ in ("u32", "i32", "u64"):
        return hex(value) if type_ == "u64" else str(value)
    return "%d:" % len(value[0]) + "/".join("%08x" % zlib.crc32(part) for part in value if part)

def read(data):
    if data[:8] != b"\x89VMT\r\n\x1a\n" or zlib.crc32(data[:16]) != struct.unpack_from("<I", data, 16)[0]:
        raise Damaged("this is no trace, or its header is damaged")
    major, _, features = struct.unpack_from("<HHI", data, 8)
    if major != 1 or features:
        raise Damaged("version %d, features %x: not known here" % (major, features))
    end = 40 + struct.unpack_from("<I", data, 36)[0]
    if zlib.crc32(data[:end]) != struct.unpack_from("<I", data, end)[0]:
        raise Damaged("the header is damaged")
    kinds = {row[0]: row[1:] for row in Msgpack(data[40:end]).value()["events"]}
    at, sequence, number = end + 4, 0, 0
    while (header := data[at:at + 64])[:4] == b"vmtB":
        kind, tag, seq, raw, stored, count, crc, first = struct.unpack_from("<4xB3xIIIIIIQ", header)
        content, at = data[at + 64:at + 64 + stored], at + 64 + stored
        right = zlib.crc32(header[:60]) == struct.unpack_from("<I", header, 60)[0]
        if not right or zlib.crc32(content) != crc or tag != zlib.crc32(data[20:36]) or seq != sequence:
            raise Damaged("block %d is damaged or missing" % sequence)
        sequence += 1
        if kind != 1:
            continue
        parts = []
        while content:
            size, length = struct.unpack_from("<II", content)
            part, content = content[8:8 + length], content[8 + length:]
            parts.append(part if length == size else unzstd(part, size))
        block = Block(b"".join(parts), kinds)
        for number in range(first, first + count):
            print(number, block.event())
    if data[at:at + 4] != b"vmtE":
        raise Damaged("the trace stops before its end")

if __name__ == "__main__":
    try:
        with open(sys.argv[1], "rb") as file:
            read(file.read())
    except (Damaged, struct.error, LookupError, StopIteration) as error:
        sys.exit(print("%s: %s" % (sys.argv[1], error), file=sys.stderr) or 3)
