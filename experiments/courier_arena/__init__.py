"""An arena where a robot on two wheels brings things to crates that it is told of in words.

What makes an instruction decidable from the sensors, none of which is a camera:

- "the red crate": every surface sends back its own share of a laser's light, as paint does, and the LiDAR gives that
  share as an intensity (`world.REFLECTANCE`): red 0.9, green 0.65, blue 0.4, all else 0.2 or less, with a deviation
  of 0.05. One ray is nearly enough, and a crate gets several.
- "the crate that beeps": a beacon stands on one of the crates, drawn anew each episode, of whatever colour. Only the
  two microphones tell where: each hears best to its own side, and the nearer one hears first and louder. Where the
  instruction names a colour, the beacon sounds all the same, usually from another crate.
- "stay left of the wall": a wall stands across the way; left is meant as seen from the start, looking at it. LiDAR
  shows the wall, odometry says on which side of it the robot is.
- What is asked is in the words alone. The test's wordings are not among those of the training (`task`).

Crates are crossed by no ray from where the wall hides them, and sound passes everything. Pillars are only in the way.
"""
