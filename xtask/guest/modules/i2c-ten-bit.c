// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/*
 * An I2C adapter with a target at a 10-bit address, for hardware machines: no adapter that a kernel can simulate by itself has such
 * addresses. The adapter is the kernel's own bit-banging algorithm; its two lines lead to a target in here, which sees of
 * a message what is on the wire. What was there is in the module's parameter "wire": S for a start, P for a stop, and each byte
 * with + or - for its acknowledgement. Writing the parameter empties it.
 *
 * The target has 256 registers. The first byte of a write is the number of one; each byte goes to, or comes from, the next one.
 */
#include <linux/i2c.h>
#include <linux/i2c-algo-bit.h>
#include <linux/module.h>

static ushort address = 0x2a5;
module_param(address, ushort, 0444);
MODULE_PARM_DESC(address, "Where the target is");

enum state { IDLE, HEAD, TAIL, NUMBER, STORE, FETCH };

/* The target. Who uses the adapter holds its lock, so only one at a time is here. */
static struct {
	bool scl, sda;		/* as the adapter leaves them */
	bool low;		/* the target pulls SDA low */
	enum state state;
	bool chosen;		/* by a whole address since the last stop */
	int bit;		/* of the byte; 8 is the acknowledgement, -1 before the first */
	u8 byte;
	bool acknowledged;
	u8 number;
	u8 registers[256];
	size_t length;
	char wire[1024];
} target = { .scl = true, .sda = true };

static void note(const char *text)
{
	target.length += scnprintf(target.wire + target.length,
				   sizeof(target.wire) - target.length, "%s", text);
}

static bool line(void)
{
	return target.sda && !target.low;
}

/* The first byte of the target's address, for a write: 11110, A9, A8. */
static u8 head(void)
{
	return 0xf0 | (address >> 7 & 0x06);
}

static bool take_head(void)
{
	if (target.byte == head()) {
		target.state = TAIL;
		return true;
	}
	if (target.byte == (head() | 1) && target.chosen) {
		target.state = FETCH;
		return true;
	}
	target.chosen = false;
	return false;
}

static bool take_tail(void)
{
	target.chosen = target.byte == (address & 0xff);
	target.state = NUMBER;
	return target.chosen;
}

/* Takes a byte; returns whether the target acknowledges it. */
static bool take(void)
{
	switch (target.state) {
	case HEAD:
		return take_head();
	case TAIL:
		return take_tail();
	case NUMBER:
		target.number = target.byte;
		target.state = STORE;
		return true;
	case STORE:
		target.registers[target.number++] = target.byte;
		return true;
	default:
		return false;
	}
}

static void end_of_byte(void)
{
	char text[8];

	scnprintf(text, sizeof(text), "%02x%c ", target.byte, target.acknowledged ? '+' : '-');
	note(text);
	if (!target.acknowledged)
		target.state = IDLE;
	target.bit = 0;
	target.low = false;
}

/* SCL falls: the adapter may change SDA now, and so may the target. */
static void falls(void)
{
	bool sends = target.state == FETCH;

	target.bit++;
	if (target.bit == 8)
		target.low = !sends && take();
	if (target.bit == 9) {
		end_of_byte();
		sends = target.state == FETCH;
	}
	if (sends && target.bit == 0)
		target.byte = target.registers[target.number++];
	if (sends && target.bit < 8)
		target.low = !(target.byte << target.bit & 0x80);
}

/* SCL rises: SDA counts now. */
static void rises(void)
{
	if (target.bit == 8)
		target.acknowledged = !line();
	else if (target.state != FETCH)
		target.byte = target.byte << 1 | line();
}

static void set_scl(void *data, int level)
{
	if (target.scl == !!level)
		return;
	target.scl = level;
	if (level)
		rises();
	else
		falls();
}

static void set_sda(void *data, int level)
{
	bool changed = target.sda != !!level;

	target.sda = level;
	if (!changed || !target.scl)
		return;
	target.low = false;
	target.bit = -1;
	if (level) {
		note("P ");
		target.state = IDLE;
		target.chosen = false;
	} else {
		note("S ");
		target.state = HEAD;
	}
}

static int get_scl(void *data)
{
	return target.scl;
}

static int get_sda(void *data)
{
	return line();
}

static struct i2c_algo_bit_data lines = {
	.setsda = set_sda,
	.setscl = set_scl,
	.getscl = get_scl,
	.getsda = get_sda,
	.udelay = 2,
	.timeout = HZ,
};

static struct i2c_adapter adapter = {
	.owner = THIS_MODULE,
	.name = "ten bit",
	.algo_data = &lines,
};

/* To be used while nobody uses the adapter. */
static int wire_get(char *buffer, const struct kernel_param *parameter)
{
	return scnprintf(buffer, PAGE_SIZE, "%.*s\n", (int)target.length, target.wire);
}

static int wire_set(const char *text, const struct kernel_param *parameter)
{
	target.length = 0;
	return 0;
}

static const struct kernel_param_ops wire_ops = { .get = wire_get, .set = wire_set };
module_param_cb(wire, &wire_ops, NULL, 0644);
MODULE_PARM_DESC(wire, "What was on the wire");

static int __init ten_bit_init(void)
{
	return i2c_bit_add_bus(&adapter);
}
module_init(ten_bit_init);

static void __exit ten_bit_exit(void)
{
	i2c_del_adapter(&adapter);
}
module_exit(ten_bit_exit);

MODULE_DESCRIPTION("I2C adapter with a target at a 10-bit address");
MODULE_LICENSE("Dual BSD/GPL");
